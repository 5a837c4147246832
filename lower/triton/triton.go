// Package triton holds the kernels that XLA has no good form for on NVIDIA GPUs, written as Triton IR.
//
//	sizes and a Tile → a kernel function builds a Func with a Builder → Verify → text → Call
//
// A Builder is a small typed front for the part of Triton IR the kernels need. Each kernel is a Go function of
// its sizes that returns a Call: the text for XLA's custom call "__gpu$xla.gpu.triton" with grid, warps, stages,
// and the arrays it takes and gives. Package interp executes a Call on the host, which is how the kernels are
// tested without a GPU.
//
// Axes, one legend for the whole package:
//
//	T tokens    K choices a token    R routed rows = T·K; row t·K+i is choice i of token t
//	E experts   D model width        F hidden width of an expert
//	P blocks of rows, each of one expert    S splits of a sum over programs
//	B sequences    H query heads    G key heads    A width of a head    C keys    N positions of a pool
//
// Rows in group order are the routed rows of expert 0, then those of expert 1, and so on, without gaps.
package triton

import (
	"fmt"
	"strings"
)

// Array is an operand or a result of a kernel: row-major, whole, aligned to 16 bytes.
type Array struct {
	Name string
	Elem Elem
	Dims []int
}

// Size is the number of elements.
func (a Array) Size() int {
	n := 1
	for _, d := range a.Dims {
		n *= d
	}
	return n
}

// String is the type as StableHLO writes it, e.g. "tensor<8x4096xbf16>".
func (a Array) String() string {
	var s strings.Builder
	s.WriteString("tensor<")
	for _, d := range a.Dims {
		fmt.Fprintf(&s, "%dx", d)
	}
	return s.String() + a.Elem.String() + ">"
}

// Layout lists the axes from the one that varies fastest, as custom calls want it: row-major.
func (a Array) Layout() []int {
	order := make([]int, len(a.Dims))
	for i := range order {
		order[i] = len(order) - 1 - i
	}
	return order
}

// Call is a kernel for given sizes. Its parameters are pointers to Operands, then to Results.
type Call struct {
	Name          string
	IR            string // the module in Triton IR
	Grid          [3]int // programs along x, y, z
	Warps, Stages int
	Operands      []Array
	Results       []Array
	InPlace       [][2]int // a result and the operand in whose memory it lies: what is not written stays as it was
	Func          *Func    // what IR prints
}

// String is the call for people: how it runs, what it takes and gives, and its IR.
func (c Call) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %d x %d x %d programs of %d warps, %d stages\n", c.Name, c.Grid[0], c.Grid[1], c.Grid[2], c.Warps, c.Stages)
	for _, a := range c.Operands {
		fmt.Fprintf(&s, "takes %s %s\n", a.Name, a)
	}
	for i, a := range c.Results {
		fmt.Fprintf(&s, "gives %s %s", a.Name, a)
		if from, ok := c.place(i); ok {
			fmt.Fprintf(&s, " in the place of %s", c.Operands[from].Name)
		}
		s.WriteByte('\n')
	}
	return s.String() + c.IR
}

// place is the operand in whose memory result i lies.
func (c Call) place(i int) (operand int, ok bool) {
	for _, p := range c.InPlace {
		if p[0] == i {
			return p[1], true
		}
	}
	return 0, false
}

// Target is the name by which XLA knows custom calls that are Triton kernels. Their api_version is 4.
const Target = "__gpu$xla.gpu.triton"

// Config is the backend_config of the custom call, an MLIR dictionary.
func (c Call) Config() string {
	return fmt.Sprintf("{debug = false, grid_x = %d : i32, grid_y = %d : i32, grid_z = %d : i32, ir = %s, name = %s, num_stages = %d : i32, num_warps = %d : i32}",
		c.Grid[0], c.Grid[1], c.Grid[2], quote(c.IR), quote(c.Name), c.Stages, c.Warps)
}

// quote is s as an MLIR string. Kernels print ASCII only.
func quote(s string) string {
	return `"` + strings.NewReplacer("\\", `\5C`, `"`, `\22`, "\n", `\0A`).Replace(s) + `"`
}

// operand declares an array that the kernel reads.
func (k *kernel) operand(name string, elem Elem, dims ...int) *Value {
	k.call.Operands = append(k.call.Operands, Array{name, elem, dims})
	return k.Param(name, elem)
}

// result declares an array that the kernel writes.
func (k *kernel) result(name string, elem Elem, dims ...int) *Value {
	k.call.Results = append(k.call.Results, Array{name, elem, dims})
	return k.Param(name, elem)
}

// update declares operand number i as a result too: the kernel writes some of it in place.
func (k *kernel) update(name string, i int) *Value {
	of := k.call.Operands[i]
	k.call.InPlace = append(k.call.InPlace, [2]int{len(k.call.Results), i})
	return k.result(name, of.Elem, of.Dims...)
}

// kernel is a Call in the making. Operands are declared before results, as their pointers come.
type kernel struct {
	*Builder
	call Call
}

func newKernel(name string, t Tile) *kernel {
	return &kernel{NewBuilder(name), Call{Name: name, Warps: t.Warps, Stages: t.Stages}}
}

// finish checks and prints the kernel.
func (k *kernel) finish(x, y, z int) (Call, error) {
	f, err := k.Finish()
	if err != nil {
		return Call{}, err
	}
	c := k.call
	c.Grid, c.Func, c.IR = [3]int{x, y, z}, f, f.String()
	for i, n := range c.Grid {
		if most := [3]int{1<<31 - 1, 65535, 65535}[i]; n < 1 || n > most {
			return Call{}, fmt.Errorf("triton: %s: grid %v, wanted 1 to %d programs along %c", c.Name, c.Grid, most, "xyz"[i])
		}
	}
	for _, a := range append(append([]Array(nil), c.Operands...), c.Results...) {
		for _, d := range a.Dims {
			if d < 1 {
				return Call{}, fmt.Errorf("triton: %s: %s %v, wanted sizes of at least 1", c.Name, a.Name, a.Dims)
			}
		}
	}
	return c, nil
}

// ceil is n/m rounded up.
func ceil(n, m int) int { return (n + m - 1) / m }

// positive refuses sizes below 1 by name.
func positive(kernel string, sizes ...any) error {
	for i := 0; i < len(sizes); i += 2 {
		if n := sizes[i+1].(int); n < 1 || n > maxSize {
			return fmt.Errorf("triton: %s: %s is %d, wanted 1 to %d", kernel, sizes[i], n, maxSize)
		}
	}
	return nil
}

// maxSize bounds every axis: offsets inside a row are i32.
const maxSize = 1 << 30
