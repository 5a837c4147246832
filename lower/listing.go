package lower

import (
	"errors"
	"fmt"

	"mix/lower/trace"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// ErrListing is what a Lowerer and its listings answer where a device would be needed.
var ErrListing = errors.New("lowered without a device")

// Lowerer is a compute.Backend that lowers programs to StableHLO and stops there. It needs neither a
// plugin nor a device: programs of any size can be read, compared and measured.
type Lowerer struct{ b *Backend }

var _ compute.Backend = (*Lowerer)(nil)

// NewLowerer lowers for o.Platform with o's passes, dumps and diffs. It refuses what New does.
func NewLowerer(o Options) (*Lowerer, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	return &Lowerer{&Backend{o: o, log: o.Log, dumped: map[string]int{}}}, nil
}

// With is the backend for programs with options, as Backend.With.
func (l *Lowerer) With(o ProgramOptions) compute.Backend { return &configuredLowerer{l, o} }

// configuredLowerer is a Lowerer whose programs have options.
type configuredLowerer struct {
	*Lowerer
	o ProgramOptions
}

// Builder starts a program that has the options.
func (c *configuredLowerer) Builder(name string) compute.Builder { return c.builder(name, c.o) }

// Builder starts a program with no options; what it compiles to is a *Listing.
func (l *Lowerer) Builder(name string) compute.Builder { return l.builder(name, ProgramOptions{}) }

func (l *Lowerer) builder(name string, o ProgramOptions) compute.Builder {
	return trace.New(name, func(t *trace.Builder) (compute.Executable, error) {
		text, _, err := l.b.lower(t, o)
		if err != nil {
			return nil, err
		}
		x := &Listing{Name: t.Name(), Text: text, outs: t.Outputs()}
		for _, p := range t.Params() {
			x.names, x.params = append(x.names, p.Name), append(x.params, p.Shape)
		}
		return x, nil
	})
}

// Listing is a lowered program.
type Listing struct {
	Name string
	Text string // StableHLO

	names        []string
	params, outs []shapes.Shape
}

// ListingOf is the listing of a graph that was compiled by a Lowerer.
func ListingOf(e compute.Executable) (*Listing, error) {
	x, ok := e.(*Listing)
	if !ok {
		return nil, fmt.Errorf("lower: executable of type %T, want one of a Lowerer", e)
	}
	return x, nil
}

// Inputs are the parameters' names and shapes.
func (x *Listing) Inputs() (names []string, inputs []shapes.Shape) { return x.names, x.params }

// Outputs are the results' shapes.
func (x *Listing) Outputs() []shapes.Shape { return x.outs }

// Execute is refused: ErrListing.
func (x *Listing) Execute([]compute.Buffer, []bool, compute.DeviceNum) ([]compute.Buffer, error) {
	return nil, fmt.Errorf("lower: program %q: %w", x.Name, ErrListing)
}

// Finalize does nothing.
func (x *Listing) Finalize() {}

// Name is the backend's name.
func (l *Lowerer) Name() string { return BackendName + "-lower" }

// String is the backend's name.
func (l *Lowerer) String() string { return l.Name() }

// Description says what the backend does.
func (l *Lowerer) Description() string {
	return "lowers programs for " + l.b.o.Platform + ", runs none"
}

// Capabilities are Backend's.
func (l *Lowerer) Capabilities() compute.Capabilities { return capabilities }

// NumDevices is one, that programs are lowered for.
func (l *Lowerer) NumDevices() int { return 1 }

// DeviceDescription names the platform.
func (l *Lowerer) DeviceDescription(compute.DeviceNum) string { return l.b.o.Platform }

// HasSharedBuffers is false: there are no buffers.
func (l *Lowerer) HasSharedBuffers() bool { return false }

// BufferFromFlatData is refused: ErrListing.
func (l *Lowerer) BufferFromFlatData(compute.DeviceNum, any, shapes.Shape) (compute.Buffer, error) {
	return nil, fmt.Errorf("lower: buffer: %w", ErrListing)
}

// NewSharedBuffer is refused: ErrListing.
func (l *Lowerer) NewSharedBuffer(compute.DeviceNum, shapes.Shape) (compute.Buffer, any, error) {
	return nil, nil, fmt.Errorf("lower: shared buffer: %w", ErrListing)
}

// Finalize ends the backend.
func (l *Lowerer) Finalize() { l.b.closed.Store(true) }

// IsFinalized tells whether it has ended.
func (l *Lowerer) IsFinalized() bool { return l.b.closed.Load() }
