package ckpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding"
	"mix/sharding/axis"
	"mix/sharding/ckpt/torchfile"
)

// ConvertOptions say what a checkpoint becomes.
type ConvertOptions struct {
	Format     string       // HuggingFace, Mixtral or Megatron
	Layout     string       // of HuggingFace: Hub (also if none is given) or Fused
	Grid       Grid         // of Mixtral's devices and of Megatron's files; sizes of 0 are 1
	DType      dtypes.DType // of the weights; InvalidDType keeps what each has
	ShardBytes int64        // of HuggingFace: most bytes of tensors in a file that has more than one; 0 is DefaultShard
	Config     []byte       // text of the model's config.json, in place of the folder's
}

// Conversion is the plan of turning one checkpoint into another: what every box of every file of the target
// is copied from. It depends on nothing but the names, shapes and boxes on both sides.
type Conversion struct {
	From   string
	Format string
	Notes  []string // what is left out, and why

	outputs []outputFile
	texts   map[string][]byte // small files of the target by name
	as      []string          // files of the source that are copied as they are, by name
	state   json.RawMessage   // of the target's manifest
	sources []*Checkpoint
}

// PlanConversion opens the checkpoint in a folder, and the optimizer's state beside the weights of a training
// run, and plans its conversion. The error is a *Problems where the checkpoint cannot be used.
func PlanConversion(dir string, params []axis.Param, o ConvertOptions) (c *Conversion, err error) {
	for _, n := range []*int{&o.Grid.Tensor, &o.Grid.Pipeline, &o.Grid.Expert} {
		if *n == 0 {
			*n = 1
		}
	}
	if o.Layout == "" {
		o.Layout = Hub
	}
	if o.ShardBytes == 0 {
		o.ShardBytes = DefaultShard
	}
	switch {
	case o.Format != HuggingFace && o.Format != Mixtral && o.Format != Megatron:
		return nil, fmt.Errorf("format %s, want %s, %s or %s", quote(o.Format), Mixtral, HuggingFace, Megatron)
	case o.Layout != Hub && o.Layout != Fused:
		return nil, fmt.Errorf("layout %s, want %s or %s", quote(o.Layout), Hub, Fused)
	case o.Format == HuggingFace && o.Grid != Grid{1, 1, 1}:
		return nil, fmt.Errorf("grid %d × %d × %d: files of format %s are not divided", o.Grid.Tensor, o.Grid.Pipeline, o.Grid.Expert, HuggingFace)
	case o.DType != dtypes.InvalidDType && kernels[o.DType] == nil:
		return nil, fmt.Errorf("dtype %s, want Float32, BFloat16 or Float16", o.DType)
	case o.ShardBytes < 0:
		return nil, fmt.Errorf("shards of %d bytes, want at least 1", o.ShardBytes)
	}
	c = &Conversion{From: dir, Format: o.Format, texts: map[string][]byte{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	weights, err := Open(dir, params, Options{})
	if err != nil {
		return c, err
	}
	c.sources = append(c.sources, weights)
	if err := c.beside(dir, o); err != nil {
		return c, err
	}
	if err := c.group("", weights, o); err != nil {
		return c, err
	}
	groups, err := c.run(dir, o.Format)
	if err != nil {
		return c, err
	}
	o.DType = dtypes.InvalidDType
	for _, name := range groups {
		moments, err := Open(filepath.Join(dir, filepath.FromSlash(name)), params, Options{})
		if err != nil {
			return c, err
		}
		c.sources = append(c.sources, moments)
		if err := c.group(name, moments, o); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Close lets go of the source's files.
func (c *Conversion) Close() error {
	var errs []error
	for _, s := range c.sources {
		errs = append(errs, s.Close())
	}
	c.sources = nil
	return errors.Join(errs...)
}

// besideWeights are the files of a model's folder that go with its weights, by the beginning of their names.
var besideWeights = []string{configFile, "generation_config.json", "tokenizer", "special_tokens_map.json", "added_tokens.json", "chat_template", "LICENSE"}

// beside notes the files that go with the weights. The configuration says the dtype that the weights will have.
func (c *Conversion) beside(dir string, o ConvertOptions) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		known := slices.ContainsFunc(besideWeights, func(s string) bool { return strings.HasPrefix(e.Name(), s) })
		if known && !e.IsDir() && plainName(e.Name()) && e.Name() != configFile {
			c.as = append(c.as, e.Name())
		}
	}
	config := o.Config
	if config == nil {
		config, err = ConfigText(dir)
		if errors.Is(err, fs.ErrNotExist) {
			c.Notes = append(c.Notes, "no "+configFile+" in the source, none in the target")
			return nil
		}
		if err != nil {
			return err
		}
	}
	if o.DType != dtypes.InvalidDType {
		if config, err = withDType(config, o.DType); err != nil {
			return err
		}
	}
	c.texts[configFile] = config
	return nil
}

// withDType is a config.json that says another type of weights.
func withDType(config []byte, dtype dtypes.DType) ([]byte, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(config, &keys); err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	key := "torch_dtype"
	if _, ok := keys["dtype"]; ok {
		delete(keys, key)
		key = "dtype"
	}
	keys[key], _ = json.Marshal(torchName(dtype))
	b, err := json.MarshalIndent(keys, "", "  ")
	return append(b, '\n'), err
}

// torchName is torch's name of a type of weights.
func torchName(dtype dtypes.DType) string {
	return map[dtypes.DType]string{dtypes.Float32: "float32", dtypes.BFloat16: "bfloat16", dtypes.Float16: "float16"}[dtype]
}

// run notes what a training run keeps beside the weights: the groups of tensors that have their names are returned, the
// other files are copied as they are, and the manifest's state goes with them.
func (c *Conversion) run(dir, format string) (groups []string, err error) {
	r, err := readRun(dir)
	if err != nil || r == nil {
		return nil, err
	}
	if format == Megatron {
		c.Notes = append(c.Notes, "optimizer state and progress of the run are left out: Megatron's own have another form")
		return nil, nil
	}
	groups, others, err := r.divide()
	c.as, c.state = append(c.as, others...), r.manifest.State
	return groups, err
}

// trainingRun is what the manifest of a training run's checkpoint says.
type trainingRun struct {
	dir      string
	manifest Manifest
	Groups   []struct {
		Name   string          `json:"name"`
		Plain  bool            `json:"plain"`
		Params json.RawMessage `json:"params"`
	} `json:"groups"`
}

// readRun reads it; nil where the folder is not of a run.
func readRun(dir string) (*trainingRun, error) {
	m, err := ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &trainingRun{dir: dir, manifest: m}
	if err := json.Unmarshal(m.State, r); err != nil || r.Groups == nil {
		return nil, nil
	}
	return r, nil
}

// divide tells the groups of tensors that have the names of the model's weights from the other files.
func (r *trainingRun) divide() (groups, others []string, err error) {
	converted := map[string]bool{".": true}
	for _, g := range r.Groups {
		if g.Name != "" && !g.Plain && (g.Params == nil || string(g.Params) == "null") {
			if !fs.ValidPath(g.Name) || strings.ContainsAny(g.Name, "\\:") {
				return nil, nil, fmt.Errorf("%s: group %s, want a folder below", filepath.Join(r.dir, ManifestFile), quote(g.Name))
			}
			groups = append(groups, g.Name)
			converted[g.Name] = true
		}
	}
	for _, f := range r.manifest.Files {
		if !converted[path.Dir(f.Name)] {
			others = append(others, f.Name)
		}
	}
	return groups, others, nil
}

// group plans the files of one set of weights, in a folder below the target's.
func (c *Conversion) group(name string, from *Checkpoint, o ConvertOptions) error {
	for _, i := range from.Ignored() {
		c.Notes = append(c.Notes, fmt.Sprintf("%s is ignored: %s", path.Join(name, i.Name), i.Reason))
	}
	var files []outputFile
	var err error
	switch o.Format {
	case HuggingFace:
		files, err = c.huggingFace(name, from, o)
	case Mixtral:
		files, err = c.mixtral(name, from, o)
	default:
		files, err = planMegatron(from.list, o.Grid)
	}
	if err != nil {
		return err
	}
	var args *torchfile.Object
	if o.Format == Megatron {
		if args, err = c.args(from, o); err != nil {
			return err
		}
		c.texts[latestFile] = []byte("1")
	}
	for i := range files {
		f := &files[i]
		f.name = path.Join(name, f.name)
		for k := range f.tensors {
			f.tensors[k].dtype = o.typeOf(from, f.tensors[k].boxes)
		}
		if o.Format == Megatron {
			err = f.layTorch(args)
		} else {
			err = f.laySafetensors()
		}
		if err != nil {
			return err
		}
	}
	if err := copies(files, from); err != nil {
		return err
	}
	c.outputs = append(c.outputs, files...)
	return nil
}

func (o ConvertOptions) typeOf(from *Checkpoint, boxes []axis.Piece) dtypes.DType {
	if o.DType != dtypes.InvalidDType {
		return o.DType
	}
	return from.typeFor(boxes)
}

// huggingFace deals the tensors out to shards; several have an index.
func (c *Conversion) huggingFace(name string, from *Checkpoint, o ConvertOptions) (files []outputFile, err error) {
	tensors, err := plan(from.list, o.Layout)
	if err != nil {
		return nil, err
	}
	for i := range tensors {
		tensors[i].dtype = o.typeOf(from, tensors[i].boxes)
	}
	shards := split(tensors, o.ShardBytes)
	for _, s := range shards {
		files = append(files, outputFile{name: s.name, tensors: s.tensors})
	}
	if len(shards) > 1 {
		c.texts[path.Join(name, indexFile)] = makeIndex(shards)
	}
	return files, nil
}

// mixtral deals the weights out to the devices of a mesh.
func (c *Conversion) mixtral(name string, from *Checkpoint, o ConvertOptions) ([]outputFile, error) {
	mesh, err := sharding.NewMesh(sharding.Axis{Name: axis.Pipe, Size: o.Grid.Pipeline}, sharding.Axis{Name: axis.Expert, Size: o.Grid.Expert},
		sharding.Axis{Name: axis.Tensor, Size: o.Grid.Tensor})
	if err != nil {
		return nil, err
	}
	files, index, err := planBoxes(from.list, mesh)
	if err == nil {
		c.texts[path.Join(name, boxesFile)] = index.text()
	}
	return files, err
}

// args are the settings that Megatron's loader wants in every file.
func (c *Conversion) args(from *Checkpoint, o ConvertOptions) (*torchfile.Object, error) {
	sizes, err := sizesOf(from.list)
	if err != nil {
		return nil, err
	}
	dtype := from.DType()
	if o.DType != dtypes.InvalidDType {
		dtype = o.DType
	}
	_, untied := from.params[head]
	return megatronSettings(sizes, o.Grid, !untied, torchName(dtype), c.texts[configFile])
}

// copies finds what every box of every file is copied from.
func copies(files []outputFile, from *Checkpoint) error {
	type owner struct{ file, box int }
	to, owners := map[string]*sharding.Layout{}, map[string][]owner{}
	for i := range files {
		files[i].copies = map[int][]copyOf{}
		box := 0
		for _, t := range files[i].tensors {
			for _, q := range t.boxes {
				l := to[q.Path]
				if l == nil {
					l = &sharding.Layout{Dims: from.params[q.Path].Dims}
					to[q.Path] = l
				}
				l.Boxes = append(l.Boxes, sharding.Box{Holder: len(l.Boxes), Offset: q.Offset, Size: q.Size})
				owners[q.Path] = append(owners[q.Path], owner{i, box})
				box++
			}
		}
	}
	for _, p := range from.list {
		l := to[p.Path]
		if l == nil {
			return fmt.Errorf("weight %s has no place in the target", p.Path)
		}
		extents := from.matched.extents[p.Path]
		list, err := sharding.Plan(layoutOfExtents(p, extents), *l)
		if err != nil {
			return fmt.Errorf("weight %s: %w", p.Path, err)
		}
		for _, x := range list {
			o := owners[p.Path][x.To.Holder]
			files[o.file].copies[o.box] = append(files[o.file].copies[o.box], copyOf{extents[x.From.Holder], x})
		}
	}
	return nil
}
