package sharding

import (
	"fmt"
	"strings"
)

// Chip is what the planner knows of a GPU and the links between GPUs.
type Chip struct {
	Name    string  `json:"name"`
	Memory  float64 `json:"memory"`  // bytes
	Peak    float64 `json:"peak"`    // dense bfloat16 FLOP/s
	HBM     float64 `json:"hbm"`     // bytes/s of its memory
	NVLink  float64 `json:"nvlink"`  // bytes/s, one way, to the GPUs of its node
	Network float64 `json:"network"` // bytes/s, one way, to other nodes
	Node    int     `json:"node"`    // GPUs of a node
}

// Chips are the GPUs known by name, in nodes of eight with one network card a GPU.
// Source: NVIDIA's data sheets of A100 80GB SXM, H100 SXM, H200 SXM, HGX B200, and of the DGX systems.
var Chips = []Chip{
	{"A100-80G", 80e9, 312e12, 2.039e12, 300e9, 25e9, 8},
	{"H100-80G", 80e9, 989e12, 3.35e12, 450e9, 50e9, 8},
	{"H200-141G", 141e9, 989e12, 4.8e12, 450e9, 50e9, 8},
	{"B200-180G", 180e9, 2250e12, 7.7e12, 900e9, 50e9, 8},
}

// ChipNamed finds a chip; case and what follows the hyphen may be left out: "h100".
func ChipNamed(name string) (Chip, error) {
	var names []string
	for _, c := range Chips {
		short, _, _ := strings.Cut(c.Name, "-")
		if strings.EqualFold(name, c.Name) || strings.EqualFold(name, short) {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return Chip{}, fmt.Errorf("%w: GPU %q, want %s", ErrPlan, name, strings.Join(names, ", "))
}

// Shares of the hardware's peaks that are reached, and other measured constants of the planner. They were
// fitted to published runs, see docs/planner.md; micro-benchmarks of a machine may replace them.
const (
	gemmShare      = 0.585 // of Peak, matrix products
	attentionShare = 0.45  // of Peak, attention's core
	hbmShare       = 0.75  // of HBM, elementwise work in training
	decodeShare    = 0.70  // of HBM, weights and keys in decoding
	nvlinkShare    = 0.65  // of NVLink
	networkShare   = 0.80  // of Network
	imbalance      = 1.055 // of matrix products, because experts get unequal work
	passes         = 2.5   // times that elementwise work reads or writes what a layer keeps
	exposed        = 0.25  // of the traffic of data parallelism: the rest hides behind computing
	serveShare     = 0.9   // of Memory, that serving may fill
	launch         = 8e-6  // s, of a small collective

	runtimeBytes   = 2.8e9  // of a training process: context, collectives' buffers, workspaces
	workspaceBytes = 0.43e9 // of a serving process, beyond serveShare
	logitBytes     = 10     // an element of the logits: float32, its gradient, and bfloat16
)

// link is the rate between the devices of a group that spans so many neighbors.
func (c Chip) link(span int) float64 {
	if span <= c.Node {
		return c.NVLink * nvlinkShare
	}
	return c.Network * networkShare
}
