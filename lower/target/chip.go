package target

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// Chip is a kind of device to compile for, whether or not one is here.
type Chip struct {
	Name     string // as flags have it
	Platform string
	Kind     string // what PJRT calls such a device

	// Config is the chip's description for the compiler, the text of XLA's GpuTargetConfigProto; "" where the
	// plugin compiles for the machine it runs on.
	Config string
	Node   int // devices of one machine, which a mesh of more is made of

	Memory    int64   // bytes of one device, 0 where it is the machine's
	Bandwidth float64 // bytes a second between a device and its memory, 0 when unknown
	Link      float64 // bytes a second from a device to others of its machine, in one direction, 0 when unknown
	BF16, FP8 float64 // operations a second of dense matrix products, a multiply-add being two; 0 when unknown
}

//go:embed h100.txtpb
var h100 string

//go:embed h200.txtpb
var h200 string

// chips. Rates, memory and links are those of NVIDIA's data sheets of the H100 SXM5 80 GB and the H200 SXM, without
// sparsity; NVLink's 900 GB/s are both directions together.
var chips = []Chip{
	{Name: "cpu", Platform: CPU, Kind: "cpu"},
	{Name: "h100", Platform: CUDA, Kind: "NVIDIA H100 80GB HBM3", Config: h100, Node: 8,
		Memory: 80e9, Bandwidth: 3.35e12, Link: 450e9, BF16: 989.4e12, FP8: 1978.9e12},
	{Name: "h200", Platform: CUDA, Kind: "NVIDIA H200", Config: h200, Node: 8,
		Memory: 141e9, Bandwidth: 4.8e12, Link: 450e9, BF16: 989.4e12, FP8: 1978.9e12},
}

// Chips lists the names of the chips.
func Chips() []string {
	names := make([]string, len(chips))
	for i, c := range chips {
		names[i] = c.Name
	}
	return names
}

// LookupChip finds a chip by name.
func LookupChip(name string) (Chip, error) {
	i := slices.IndexFunc(chips, func(c Chip) bool { return c.Name == name })
	if i < 0 {
		return Chip{}, fmt.Errorf("target %q is unknown, want one of %s", name, strings.Join(Chips(), ", "))
	}
	return chips[i], nil
}

// Topology is the form in which the compiler is told of n such devices, "partitions x hosts x devices of a host". It
// refuses numbers that do not fill whole machines.
func (c Chip) Topology(n int) (string, error) {
	switch {
	case n < 1 || c.Node < 1:
		return "", fmt.Errorf("%d devices of target %s, want at least 1, of a GPU", n, c.Name)
	case n <= c.Node:
		return fmt.Sprintf("1x1x%d", n), nil
	case n%c.Node != 0:
		return "", fmt.Errorf("%d devices of target %s, want up to %d or a multiple of it, the devices of a machine", n, c.Name, c.Node)
	}
	return fmt.Sprintf("1x%dx%d", n/c.Node, c.Node), nil
}
