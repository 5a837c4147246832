package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// layer is a set of values by flag name: a file, a preset.
type layer struct {
	name   string
	values map[string]*yaml.Node
}

// readLayer reads YAML of flag names and values. Values are text, numbers, true and false, or lists of them.
func readLayer(name string, text []byte) (layer, error) {
	l := layer{name, map[string]*yaml.Node{}}
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return l, nil
	} else if err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return l, fmt.Errorf("%s: more than one document, want one", name)
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return l, nil
	}
	if top.Kind != yaml.MappingNode {
		return l, l.at(top, "want lines of name: value")
	}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if old := l.values[key.Value]; old != nil {
			return l, l.at(key, "%s again, first in line %d", key.Value, old.Line)
		}
		items := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			items = value.Content
		}
		for _, v := range items {
			if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
				return l, l.at(key, "%s: want a value or a list of values", key.Value)
			}
		}
		value.Line = key.Line // errors are told there
		l.values[key.Value] = value
	}
	return l, nil
}

// at is an error at a line.
func (l layer) at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", l.name, n.Line, fmt.Sprintf(format, args...))
}

// check refuses names that are no flags and values that are not theirs, the first line first.
func (l layer) check(all []*kong.Flag) error {
	names := slices.SortedFunc(maps.Keys(l.values), func(a, b string) int { return l.values[a].Line - l.values[b].Line })
	for _, name := range names {
		i := slices.IndexFunc(all, func(f *kong.Flag) bool { return f.Name == name && !outsideFiles(f) })
		if i < 0 {
			return l.at(l.values[name], "unknown name %q", name)
		}
		if l.values[name].Kind == yaml.SequenceNode && all[i].Target.Kind() != reflect.Slice {
			return l.at(l.values[name], "--%s: want one value, not a list", name)
		}
		if err := all[i].Parse(kong.Scan().PushTyped(asParsed(all[i], l.values[name]), kong.FlagValueToken), reflect.New(all[i].Target.Type()).Elem()); err != nil {
			return l.at(l.values[name], "%v", err)
		}
	}
	return nil
}

// outsideFiles tells whether a flag makes sense on the command line only.
func outsideFiles(f *kong.Flag) bool {
	return slices.Contains([]string{"help", "config", "print-config"}, f.Name)
}

// rivals are flags that say the same thing in different ways: one that is given silences the others of
// what has less to say.
var rivals = [][]string{
	{"dtype", "bf16"},
	{"lr-warmup-iters", "lr-warmup-fraction"},
	{"tokenizer", "tokenizer-model"},
	{"recompute-granularity", "recompute-activations"},
	{"moe-aux-loss-type", "moe-router-load-balancing-type"},
	{"data", "data-path", "train-data-path", "valid-data-path", "mock-data"},
}

// layers give flags that are not on the command line their values, the first layer that has one.
type layers struct {
	from  []layer
	given map[string]bool // names on the command line
}

func (ls layers) Validate(*kong.Application) error { return nil }

func (ls layers) Resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if outsideFiles(f) {
		return nil, nil
	}
	said := func(name string) bool { return ls.given[name] }
	for _, l := range ls.from {
		if ls.silenced(f.Name, said) {
			return nil, nil
		}
		node := l.values[f.Name]
		if node == nil {
			above := said
			said = func(name string) bool { return above(name) || l.values[name] != nil }
			continue
		}
		return asParsed(f, node), nil
	}
	return nil, nil
}

// says tells whether any layer or the command line has a name.
func (ls layers) says(name string) bool {
	return ls.given[name] || slices.ContainsFunc(ls.from, func(l layer) bool { return l.values[name] != nil })
}

// silenced tells whether a rival was said above.
func (ls layers) silenced(name string, said func(string) bool) bool {
	for _, group := range rivals {
		if slices.Contains(group, name) && slices.ContainsFunc(group, func(r string) bool { return r != name && said(r) }) {
			return true
		}
	}
	return false
}

// asParsed is a node's value as the parser takes it: text, or a list of texts.
func asParsed(f *kong.Flag, node *yaml.Node) any {
	if f.Target.Kind() != reflect.Slice && node.Kind == yaml.ScalarNode {
		return node.Value
	}
	items := []any{}
	for _, v := range node.Content {
		items = append(items, v.Value)
	}
	if node.Kind == yaml.ScalarNode {
		items = append(items, node.Value)
	}
	return items
}

// BeforeResolve reads the file and finds the preset, once the command line is split into flags.
func (c *command) BeforeResolve(k *kong.Context) error {
	ls := layers{given: map[string]bool{}}
	text := map[string]string{}
	for _, p := range k.Path {
		if p.Flag != nil {
			ls.given[p.Flag.Name] = true
			text[p.Flag.Name] = fmt.Sprint(k.FlagValue(p.Flag))
		}
	}
	if path, given := text["config"]; given {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("--config %s: %w", path, reason(err))
		}
		file, err := readLayer(path, b)
		if err == nil {
			err = file.check(k.Model.Flags)
		}
		if err != nil {
			return err
		}
		ls.from = append(ls.from, file)
		for name, node := range file.values {
			if !ls.given[name] {
				text[name] = node.Value
			}
		}
	}
	fromWeights := text["init"] != "" || text["load"] != "" && text["load"] != text["save"]
	preset, err := presetFor(text["preset"], fromWeights, text["lora-rank"])
	if err != nil {
		return err
	}
	c.preset, c.given = preset, layers{slices.Clone(ls.from), ls.given}
	ls.from = append(ls.from, preset)
	k.AddResolver(ls)
	return nil
}

// setting is a flag with its value.
type setting struct {
	group, name string
	value       *yaml.Node // nil for one that nobody set
}

// settings are all flags with their values. Text, lists and switches that nobody set have none.
func settings(k *kong.Context, preset layer) (all []setting) {
	for _, f := range k.Model.Flags {
		if outsideFiles(f) || f.Group == nil || f.Group.Key == fixedGroup {
			continue
		}
		value := node(f.Target)
		if value == nil || f.Target.IsZero() && value.Tag != "!!int" && preset.values[f.Name] == nil && !f.HasDefault {
			value = nil
		}
		all = append(all, setting{f.Group.Key, f.Name, value})
	}
	return all
}

// set are the settings that have a value.
func set(all []setting) []setting {
	return slices.DeleteFunc(slices.Clone(all), func(s setting) bool { return s.value == nil })
}

// printConfig writes settings as YAML.
func printConfig(w io.Writer, all []setting) error {
	top := &yaml.Node{Kind: yaml.MappingNode}
	group := ""
	for _, s := range set(all) {
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: s.name}
		if s.group != group {
			group = s.group
			key.HeadComment = group
		}
		top.Content = append(top.Content, key, s.value)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(top), enc.Close())
}

// settingsJSON is settings as a JSON object, in their order.
func settingsJSON(all []setting) (json.RawMessage, error) {
	var b bytes.Buffer
	for i, s := range set(all) {
		var v any
		if err := s.value.Decode(&v); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(&b, "%s%q:%s", map[bool]string{true: "{", false: ","}[i == 0], s.name, text)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// node is a value in YAML, nil for a pointer to none.
func node(v reflect.Value) *yaml.Node {
	scalar := func(tag, value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value} }
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return node(v.Elem())
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			list.Content = append(list.Content, node(v.Index(i)))
		}
		return list
	case reflect.Bool:
		return scalar("!!bool", strconv.FormatBool(v.Bool()))
	case reflect.Float64:
		if x := v.Float(); x == math.Trunc(x) && math.Abs(x) < 1e15 {
			return scalar("", strconv.FormatFloat(x, 'f', -1, 64))
		}
		return scalar("", strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case reflect.String:
		return scalar("!!str", v.String())
	}
	return scalar("!!int", fmt.Sprint(v.Interface()))
}
