package ckpt

import (
	"errors"
	"fmt"
)

// What can be wrong with a checkpoint. Test with errors.Is.
var (
	ErrFormat    = errors.New("malformed safetensors") // the container breaks its format's rules
	ErrTruncated = errors.New("truncated safetensors") // the file ends before its tensors do
	ErrIndex     = errors.New("malformed index")       // the index of a sharded checkpoint cannot be followed
	ErrMissing   = errors.New("missing tensor")        // a weight has no tensor
	ErrExtra     = errors.New("unexpected tensor")     // a tensor has no weight
	ErrShape     = errors.New("wrong shape")           // sizes disagree with the configuration
	ErrDType     = errors.New("wrong dtype")           // elements are not f32, bf16 or f16
	ErrCopies    = errors.New("copies differ")         // a weight is there twice, with other values
)

// Problems is the error of a checkpoint that cannot be used: everything that is wrong with it.
type Problems struct {
	Where string // folder
	List  []error
}

// Error is one line: the first problem and how many more there are.
func (p *Problems) Error() string {
	s := fmt.Sprintf("checkpoint %s: %v", p.Where, p.List[0])
	if more := len(p.List) - 1; more > 0 {
		s += fmt.Sprintf(" (and %d more problems; ckpt list prints them)", more)
	}
	return s
}

// Unwrap gives errors.Is and errors.As every problem.
func (p *Problems) Unwrap() []error { return p.List }
