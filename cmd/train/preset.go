package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"mix/graph"
	"mix/internal/cli"
	"mix/internal/demo"
)

//go:embed presets/*.yaml
var presetFiles embed.FS

// preset is a file of values and the sizes to them.
type preset struct {
	name  string
	sizes func() (graph.Config, error) // nil for one that needs --init
}

// presets in the order that they are told in.
var presets = []preset{
	{"demo", func() (graph.Config, error) { return graph.ParseConfig(demo.Config()) }},
	{"mixtral-8x7b", func() (graph.Config, error) { return graph.Mixtral8x7B, nil }},
	{"mixtral-8x22b", func() (graph.Config, error) { return graph.Mixtral8x22B, nil }},
	{"finetune", nil},
	{"finetune-lora", nil},
}

// presetFor is the values of the preset that is named, or of the one that suits.
func presetFor(name string, fromWeights bool, rank string) (layer, error) {
	switch {
	case name != "":
	case fromWeights && rank != "" && rank != "0":
		name = "finetune-lora"
	case fromWeights:
		name = "finetune"
	default:
		name = "demo"
	}
	var names []string
	for _, p := range presets {
		names = append(names, p.name)
	}
	if !slices.Contains(names, name) {
		return layer{}, fmt.Errorf("--preset is %q, want %s or %s", name, strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
	}
	b, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return layer{}, err
	}
	return readLayer(name, b)
}

// sizes are those of a preset.
func sizes(name string) (graph.Config, error) {
	i := slices.IndexFunc(presets, func(p preset) bool { return p.name == name })
	if i < 0 || presets[i].sizes == nil {
		return graph.Config{}, fmt.Errorf("%w: --preset %s has no sizes: it needs --init", cli.ErrUsage, name)
	}
	return presets[i].sizes()
}
