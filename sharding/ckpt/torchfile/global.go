package torchfile

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
)

// storages maps torch's storage classes, one an element type, to ours.
// Source: torch/storage.py, _dtype_to_storage_type_map.
var storages = map[string]dtypes.DType{
	"DoubleStorage": dtypes.Float64, "FloatStorage": dtypes.Float32, "HalfStorage": dtypes.Float16,
	"BFloat16Storage": dtypes.BFloat16, "LongStorage": dtypes.Int64, "IntStorage": dtypes.Int32,
	"ShortStorage": dtypes.Int16, "CharStorage": dtypes.Int8, "ByteStorage": dtypes.Uint8, "BoolStorage": dtypes.Bool,
}

// elements maps torch's names of element types, as tensors of untyped storages have them, to ours.
var elements = map[string]dtypes.DType{
	"float64": dtypes.Float64, "float32": dtypes.Float32, "float16": dtypes.Float16, "bfloat16": dtypes.BFloat16,
	"int64": dtypes.Int64, "int32": dtypes.Int32, "int16": dtypes.Int16, "int8": dtypes.Int8, "uint8": dtypes.Uint8,
	"uint16": dtypes.Uint16, "uint32": dtypes.Uint32, "uint64": dtypes.Uint64, "bool": dtypes.Bool,
	"float8_e4m3fn": dtypes.F8E4M3FN, "float8_e5m2": dtypes.F8E5M2,
}

// builders are the functions that are understood: what they would return is made here.
var builders = map[Global]func(m *machine, at int, args Tuple) (any, error){
	{"torch._utils", "_rebuild_tensor_v2"}:            (*machine).tensorV2,
	{"torch._utils", "_rebuild_tensor_v3"}:            (*machine).tensorV3,
	{"torch._utils", "_rebuild_parameter"}:            (*machine).first,
	{"torch._utils", "_rebuild_parameter_with_state"}: (*machine).first,
	{"torch", "Size"}:                                 (*machine).first,
	{"collections", "OrderedDict"}:                    (*machine).dict,
	{"collections", "defaultdict"}:                    (*machine).dict,
}

// records are the classes and functions whose calls are kept as records of what they were given: settings,
// and the states of random generators that stand beside the weights.
var records = map[Global]bool{
	{"argparse", "Namespace"}: true, {"types", "SimpleNamespace"}: true,
	{"torch", "device"}: true, {"torch.nn.parameter", "Parameter"}: true,
	{"io", "BytesIO"}: true, {"_io", "BytesIO"}: true, {"_codecs", "encode"}: true,
	{"pathlib", "PosixPath"}: true, {"signal", "Signals"}: true, {"datetime", "timedelta"}: true,
	{"builtins", "set"}: true, {"__builtin__", "set"}: true, {"builtins", "bytearray"}: true,
	{"numpy.core.multiarray", "_reconstruct"}: true, {"numpy._core.multiarray", "_reconstruct"}: true,
	{"numpy.core.multiarray", "scalar"}: true, {"numpy._core.multiarray", "scalar"}: true,
	{"numpy", "dtype"}: true, {"numpy", "ndarray"}: true,
}

// inert are the packages whose classes Megatron keeps in its arguments: enumerations and settings. They are
// held as records of their fields, like argparse.Namespace.
var inert = []string{"megatron.core", "megatron.training", "megatron.model", "megatron.legacy"}

// understood says whether a global may be in a file.
func understood(g Global) bool {
	if builders[g] != nil || records[g] {
		return true
	}
	if g.Module == "torch" && (elements[g.Name] != dtypes.InvalidDType || storages[g.Name] != dtypes.InvalidDType) || g.Module == "torch.storage" && g.Name == "UntypedStorage" {
		return true
	}
	for _, p := range inert {
		if g.Module == p || strings.HasPrefix(g.Module, p+".") {
			return true
		}
	}
	return false
}

// global pushes a name, or refuses it.
func (m *machine) global(at int, g Global) error {
	if !understood(g) {
		return fmt.Errorf("%w: byte %d: global %.200q, which tensors do not need", ErrRefused, at, g.String())
	}
	m.push(g)
	return nil
}

// call is what a function would return for its arguments, or a record of the call.
func (m *machine) call(at int, f, args any) (any, error) {
	g, ok := f.(Global)
	a, isTuple := args.(Tuple)
	if !ok || !isTuple {
		return nil, m.wrong(at, "a call of a %s with a %s, want a global and a tuple", kind(f), kind(args))
	}
	if build := builders[g]; build != nil {
		return build(m, at, a)
	}
	if !records[g] && (g.Module == "torch" || g.Module == "torch.storage") {
		return nil, fmt.Errorf("%w: byte %d: a call of %s, which is data", ErrRefused, at, g)
	}
	return &Object{Class: g, Args: a}, nil
}

// dict is an empty dictionary; OrderedDict may be given its pairs.
func (m *machine) dict(at int, args Tuple) (any, error) {
	d := &Dict{}
	if len(args) == 0 {
		return d, nil
	}
	list, ok := args[len(args)-1].(*List)
	if !ok {
		return d, nil // a defaultdict's class of values
	}
	if m.made += len(list.Items); m.made > maxValues { // one list may be given to many calls
		return nil, m.wrong(at, "more than %d values", maxValues)
	}
	for _, item := range list.Items {
		var pair []any
		switch v := item.(type) {
		case *List:
			pair = v.Items
		case Tuple:
			pair = v
		}
		if len(pair) != 2 {
			return nil, m.wrong(at, "a pair of a dictionary is a %s", kind(item))
		}
		if err := d.Set(pair[0], pair[1]); err != nil {
			return nil, m.wrong(at, "%v", err)
		}
	}
	return d, nil
}

// first is the first argument: a parameter is its tensor, a torch.Size its tuple.
func (m *machine) first(at int, args Tuple) (any, error) {
	if len(args) == 0 {
		return nil, m.wrong(at, "a call without arguments")
	}
	return args[0], nil
}
