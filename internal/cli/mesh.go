package cli

import (
	"fmt"
	"strconv"
	"strings"
)

// OneDevice refuses a mesh, as in "data=1 expert=1", of more than one device.
func OneDevice(mesh string) error {
	for _, field := range strings.Fields(mesh) {
		name, size, found := strings.Cut(field, "=")
		v, err := strconv.Atoi(size)
		if !found || name == "" || err != nil || v < 1 {
			return fmt.Errorf("%w: mesh %q: %q, want axis=size", ErrUsage, mesh, field)
		}
		if v > 1 {
			return fmt.Errorf("mesh %q: axis %s of %d devices, want 1: programs run on one device", mesh, name, v)
		}
	}
	return nil
}
