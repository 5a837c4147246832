package lora

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The files of a PEFT folder.
// Source: PEFT, utils/constants.py.
const (
	configFile  = "adapter_config.json"
	weightsFile = "adapter_model.safetensors"
)

// config is adapter_config.json: the keys that decide what the adapters compute.
// Source: PEFT, tuners/lora/config.py and config.py.
type config struct {
	Type    string          `json:"peft_type"`
	Rank    *int            `json:"r"`
	Alpha   *float64        `json:"lora_alpha"`
	RsLoRA  bool            `json:"use_rslora"`
	Targets json.RawMessage `json:"target_modules"` // a list of names, a regular expression, or AllLinear
	Base    *string         `json:"base_model_name_or_path"`
	Task    *string         `json:"task_type"`
	Bias    *string         `json:"bias"`
	Init    json.RawMessage `json:"init_lora_weights"`
}

// Keys of adapter_config.json besides: those read, and those that do not change what is computed. All
// others must be null, false or empty.
var (
	readKeys = []string{"peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "base_model_name_or_path", "task_type", "bias",
		"init_lora_weights"}
	harmlessKeys = []string{"auto_mapping", "revision", "inference_mode", "peft_version", "lora_dropout", "layers_pattern", "loftq_config",
		"eva_config", "corda_config", "lora_ga_config", "megatron_config", "megatron_core", "runtime_config", "qalora_group_size",
		"ensure_weight_tying"}
	// harmlessInits leave the base as it is; pissa, olora, loftq and their like move part of it into the adapters.
	harmlessInits = []string{"", "null", "true", "false", `"gaussian"`, `"eva"`, `"orthogonal"`}
)

// reasons say why a key is refused where its name does not.
var reasons = map[string]string{
	"target_parameters": "adapters of fused experts are not supported, only those of w1, w2, w3 by expert",
	"rank_pattern":      "one rank for all adapters is supported",
	"alpha_pattern":     "one alpha for all adapters is supported",
	"modules_to_save":   "a folder of adapters only is supported",
}

// parseConfig reads adapter_config.json. Options.Targets holds the names listed there, whether or not they
// are any of ours; none when there is a pattern.
func parseConfig(b []byte) (o Options, base string, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return o, "", fmt.Errorf("not a JSON object: %w", err)
	}
	var f config
	if err := json.Unmarshal(b, &f); err != nil {
		return o, "", err
	}
	if f.Type != "LORA" {
		return o, "", fmt.Errorf("peft_type is %q, want \"LORA\"", f.Type)
	}
	if err := refuse(keys, f); err != nil {
		return o, "", err
	}
	o = Options{Rank: 8, Alpha: 8, RsLoRA: f.RsLoRA} // PEFT's, where the file is silent
	if f.Rank != nil {
		o.Rank = *f.Rank
	}
	if f.Alpha != nil {
		o.Alpha = *f.Alpha
	}
	if f.Base != nil {
		base = *f.Base
	}
	var pattern string
	switch {
	case len(f.Targets) == 0 || json.Unmarshal(f.Targets, &o.Targets) == nil:
	case json.Unmarshal(f.Targets, &pattern) != nil:
		return o, "", fmt.Errorf("target_modules is %s, want a list of names, a pattern or %q", short(f.Targets), AllLinear)
	case strings.EqualFold(pattern, AllLinear):
		o.Targets = names()
	}
	return o, base, nil
}

// refuse names the first key, in alphabetical order, that asks for what is not supported.
func refuse(keys map[string]json.RawMessage, f config) error {
	var bad []string
	for k, v := range keys {
		if slices.Contains(readKeys, k) || slices.Contains(harmlessKeys, k) || empty(v) {
			continue
		}
		reason := reasons[k]
		if reason == "" {
			reason = "not supported, want none"
		}
		bad = append(bad, fmt.Sprintf("%q is %s: %s", k, short(v), reason))
	}
	if f.Task != nil && *f.Task != "CAUSAL_LM" {
		bad = append(bad, fmt.Sprintf("\"task_type\" is %q, want \"CAUSAL_LM\"", *f.Task))
	}
	if f.Bias != nil && *f.Bias != "none" {
		bad = append(bad, fmt.Sprintf("\"bias\" is %q, want \"none\"", *f.Bias))
	}
	if !slices.Contains(harmlessInits, string(f.Init)) {
		bad = append(bad, fmt.Sprintf("\"init_lora_weights\" is %s, which changes the base: not supported", short(f.Init)))
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Errorf("%s", bad[0])
	}
	return nil
}

// empty says whether a JSON value is null, false, "", {} or [].
func empty(v json.RawMessage) bool {
	var b bytes.Buffer
	return json.Compact(&b, v) == nil && slices.Contains([]string{"null", "false", `""`, "{}", "[]"}, b.String())
}

// short is the beginning of a JSON value on one line.
func short(v json.RawMessage) string {
	return fmt.Sprintf("%.60s", strings.Join(strings.Fields(string(v)), " "))
}

// makeConfig writes adapter_config.json, with PEFT's keys in PEFT's order.
func makeConfig(o Options, base string) ([]byte, error) {
	var listed []string
	for _, t := range o.chosen() {
		listed = append(listed, t.name)
	}
	slices.Sort(listed)
	keys := map[string]any{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": o.Rank, "lora_alpha": o.Alpha, "use_rslora": o.RsLoRA,
		"target_modules": listed, "base_model_name_or_path": nil, "bias": "none", "init_lora_weights": true, "inference_mode": true,
		"lora_dropout": 0.0, "fan_in_fan_out": false, "use_dora": false, "lora_bias": false, "rank_pattern": map[string]int{},
		"alpha_pattern": map[string]int{}, "loftq_config": map[string]int{}}
	if base != "" {
		keys["base_model_name_or_path"] = base
	}
	for _, k := range []string{"auto_mapping", "exclude_modules", "layer_replication", "layers_pattern", "layers_to_transform", "modules_to_save",
		"revision", "target_parameters"} {
		keys[k] = nil
	}
	if o.Alpha == math.Trunc(o.Alpha) && o.Alpha < 1<<53 {
		keys["lora_alpha"] = int64(o.Alpha) // PEFT has an integer there; it takes fractions too
	}
	return json.MarshalIndent(keys, "", "  ") // a map's keys are sorted
}
