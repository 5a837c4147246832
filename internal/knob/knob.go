// Package knob reads the developer switches, environment variables MIX_*. They choose what is shown
// and checked, never what is computed, and may change from one version to the next.
package knob

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Values are the switches as set. The zero value is all of them unset.
type Values struct {
	Dump        string   // folder
	Diff        []string // passes
	Skip        []string // passes
	Verify      bool
	FakeDevices int // 0: as many as there are
}

// Knob is one switch.
type Knob struct {
	Name    string
	Kind    string // what a value looks like
	Meaning string

	set func(v *Values, text string) error
}

// list is the only place where switches are named.
var list = []Knob{
	{"MIX_DUMP", "a folder", "write the module there before and after every pass that changed it",
		func(v *Values, s string) error { v.Dump = s; return nil }},
	{"MIX_DIFF", "passes, with commas between", "show on stderr what these passes changed",
		func(v *Values, s string) (err error) { v.Diff, err = names(s); return }},
	{"MIX_SKIP", "passes, with commas between", "leave these passes out; composites then keep their bodies",
		func(v *Values, s string) (err error) { v.Skip, err = names(s); return }},
	{"MIX_VERIFY", "0 or 1", "check the module after every pass",
		func(v *Values, s string) (err error) { v.Verify, err = onOff(s); return }},
	{"MIX_FAKE_DEVICES", "a number from 1 to 512", "make so many CPU devices of this machine",
		func(v *Values, s string) (err error) { v.FakeDevices, err = number(s, 1, 512); return }},
}

// All lists the switches.
func All() []Knob { return slices.Clone(list) }

// Read reads the switches from the environment and tells log of each that is set.
func Read(log *slog.Logger) (Values, error) { return From(os.Environ(), log) }

// From reads the switches from a list of NAME=value. A variable that is empty counts as unset. An
// unknown variable MIX_* and a value of the wrong kind are errors that name it.
func From(environ []string, log *slog.Logger) (Values, error) {
	var v Values
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "MIX_") || text == "" {
			continue
		}
		i := slices.IndexFunc(list, func(k Knob) bool { return k.Name == name })
		if i < 0 {
			return Values{}, fmt.Errorf("knob: unknown variable %s, known are %s", name, known())
		}
		if err := list[i].set(&v, text); err != nil {
			return Values{}, fmt.Errorf("knob: %s=%s: wanted %s", name, text, list[i].Kind)
		}
		log.Info("developer switch", "name", name, "value", text)
	}
	return v, nil
}

func known() string {
	s := make([]string, len(list))
	for i, k := range list {
		s[i] = k.Name
	}
	return strings.Join(s, ", ")
}

func names(s string) ([]string, error) {
	list := strings.Split(s, ",")
	if slices.Contains(list, "") {
		return nil, strconv.ErrSyntax
	}
	return list, nil
}

func onOff(s string) (bool, error) {
	if s != "0" && s != "1" {
		return false, strconv.ErrSyntax
	}
	return s == "1", nil
}

func number(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && (n < low || n > high) {
		err = strconv.ErrRange
	}
	return n, err
}
