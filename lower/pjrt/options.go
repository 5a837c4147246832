package pjrt

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// CompileOptions are the options of one compilation; the zero value is one device.
type CompileOptions struct {
	// Replicas and Partitions say how many devices run the program; 0 means 1. Partitions split
	// its tensors, replicas repeat it.
	Replicas, Partitions int

	// Shardy partitions by sdy annotations; otherwise GSPMD does by mhlo.sharding.
	Shardy bool

	// Devices are device ids, replica by replica: partition p of replica r runs on
	// Devices[r·Partitions+p]. nil means 0, 1, 2, …; a program for one device is then portable,
	// and runs where ExecOptions.Device says.
	Devices []int

	// Overrides sets XLA's debug options by name, such as "xla_cpu_enable_fast_math". Values are
	// bool, int, int64, float64 or string. Compile refuses an unknown name.
	Overrides map[string]any
}

// Marshal makes the bytes that Compile takes (xla.CompileOptionsProto). Equal options give equal
// bytes, so they can be part of a cache key.
func (o CompileOptions) Marshal() ([]byte, error) {
	r, p := max(o.Replicas, 1), max(o.Partitions, 1)
	if o.Replicas < 0 || o.Partitions < 0 {
		return nil, fmt.Errorf("pjrt: compile options: %d replicas, %d partitions, want no negative", o.Replicas, o.Partitions)
	}
	if o.Devices != nil && len(o.Devices) != r*p {
		return nil, fmt.Errorf("pjrt: compile options: %d devices, want %d for %d replicas x %d partitions", len(o.Devices), r*p, r, p)
	}
	var build wire // ExecutableBuildOptionsProto
	build.int(1, -1)
	build.int(4, int64(r))
	build.int(5, int64(p))
	if r*p > 1 {
		build.int(6, 1) // use_spmd_partitioning
		if o.Shardy {
			build.int(19, 1)
		}
	}
	portable := r*p == 1 && o.Devices == nil
	if !portable {
		build.bytes(9, o.assignment(r, p))
	}
	var w wire
	w.bytes(3, build)
	if portable {
		w.int(4, 1) // compile_portable_executable
	}
	for _, name := range slices.Sorted(maps.Keys(o.Overrides)) {
		v, err := override(o.Overrides[name])
		if err != nil {
			return nil, fmt.Errorf("pjrt: compile options: override %q: %w", name, err)
		}
		var e wire
		e.bytes(1, []byte(name))
		e.bytes(2, v)
		w.bytes(7, e)
	}
	return w, nil
}

// assignment makes a DeviceAssignmentProto: for each partition the devices of its replicas.
func (o CompileOptions) assignment(replicas, partitions int) wire {
	var w wire
	w.int(1, int64(replicas))
	w.int(2, int64(partitions))
	for p := range partitions {
		var ids, computation wire
		for r := range replicas {
			id := r*partitions + p
			if o.Devices != nil {
				id = o.Devices[id]
			}
			ids = binary.AppendUvarint(ids, uint64(id))
		}
		computation.bytes(1, ids)
		w.bytes(3, computation)
	}
	return w
}

// override makes an OptionOverrideProto.
func override(v any) (w wire, err error) {
	switch v := v.(type) {
	case string:
		w.bytes(1, []byte(v))
	case bool:
		n := int64(0)
		if v {
			n = 1
		}
		w.int(2, n)
	case int:
		w.int(3, int64(v))
	case int64:
		w.int(3, v)
	case float64:
		w.float(4, v)
	default:
		return nil, fmt.Errorf("type %T, want bool, int, int64, float64 or string", v)
	}
	return w, nil
}

// wire is a message in protobuf's wire format.
type wire []byte

func (w *wire) tag(field, kind int) { *w = binary.AppendUvarint(*w, uint64(field<<3|kind)) }

func (w *wire) int(field int, v int64) {
	w.tag(field, 0)
	*w = binary.AppendUvarint(*w, uint64(v))
}

func (w *wire) float(field int, v float64) {
	w.tag(field, 1)
	*w = binary.LittleEndian.AppendUint64(*w, math.Float64bits(v))
}

func (w *wire) bytes(field int, v []byte) {
	w.tag(field, 2)
	*w = binary.AppendUvarint(*w, uint64(len(v)))
	*w = append(*w, v...)
}
