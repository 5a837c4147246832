package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"mix/internal/cli"
)

// settingsFile is where a run's folder has the settings that the run was started with, as --config reads
// them.
const settingsFile = "train.yaml"

// keepSettings writes them. A run that goes on says which differ, and writes them with its first checkpoint:
// until then the folder holds what was done with the old ones.
func (s *session) keepSettings(all []setting) error {
	if s.store == nil {
		return nil
	}
	path := filepath.Join(s.c.Save, settingsFile)
	var b bytes.Buffer
	if err := printConfig(&b, all); err != nil {
		return err
	}
	if !s.goesOn() {
		return cli.WriteFile(path, b.Bytes())
	}
	text, err := os.ReadFile(path)
	if err == nil {
		var then layer
		if then, err = readLayer(path, text); err == nil {
			if list := differences(then, all); len(list) > 0 {
				fmt.Fprintf(s, "other settings than the run had up to now: %s\n", strings.Join(list, "; "))
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the settings that the run had up to now cannot be read: " + err.Error())
	}
	s.settings = b.Bytes()
	return nil
}

// settingsSaved writes the settings of a run that goes on, once.
func (s *session) settingsSaved() {
	if s.settings == nil {
		return
	}
	if err := cli.WriteFile(filepath.Join(s.c.Save, settingsFile), s.settings); err != nil {
		s.log.Warn("settings: " + err.Error())
	}
	s.settings = nil
}

// goesOn tells whether there is a checkpoint to go on from.
func (s *session) goesOn() bool { return s.c.Save != "" && len(checkpoints(s.c.Save)) > 0 }

// differences says which settings that change what is computed are others now.
func differences(then layer, now []setting) (list []string) {
	for _, x := range now {
		if !slices.Contains([]string{"Model", "Data", "Training", "Adapters"}, x.group) || x.name == "num-workers" || x.name == "data-cache-path" {
			continue
		}
		if a, b := inWords(then.values[x.name]), inWords(x.value); a != b {
			list = append(list, fmt.Sprintf("%s %s, was %s", x.name, b, a))
		}
	}
	return list
}

// inWords is a value on one line.
func inWords(n *yaml.Node) string {
	switch {
	case n == nil:
		return "unset"
	case n.Kind == yaml.ScalarNode:
		return n.Value
	}
	var items []string
	for _, v := range n.Content {
		items = append(items, v.Value)
	}
	return strings.Join(items, ",")
}
