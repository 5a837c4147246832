package show

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Environment variables in which gonb names two pipes to a cell's program: one for what is to be shown, one
// for answers.
//
// Source: github.com/janpfeifer/gonb v0.11.4, gonbui/protocol.
const (
	pipeEnv = "GONB_PIPE"
	backEnv = "GONB_PIPE_BACK"
)

// display is gonb's DisplayData. The types here have the same members: gob asks for no more.
type display struct {
	Data      map[string]any // by MIME type
	Metadata  map[string]any
	DisplayID string // of an output that later ones replace, "" for one of its own
}

// value is gonb's CommValue, of which we use the synchronization: a number that comes back when all that
// was sent before it is shown.
type value struct {
	Address string
	Request bool
	Value   any
}

// Names that gonb knows.
const (
	htmlType  = "text/html"
	valueType = "gonb/comm_value"
	valueName = "github.com/janpfeifer/gonb/gonbui/protocol.CommValue" // value's, inside of a display
	syncTo    = "#gonbui/sync"
	syncFrom  = "#gonbui/sync_ack"
)

// ErrNoNotebook is the error of showing something in a program that no notebook runs.
var ErrNoNotebook = errors.New("no notebook: " + pipeEnv + " is not set")

// pipe is the way to the notebook. It speaks gonb's protocol itself, since gonb's own package for this would
// bring all of its kernel into the module. A program may have one of the two.
type pipe struct {
	mu   sync.Mutex
	to   *gob.Encoder // nil before the first use
	from *gob.Decoder
	sent int // synchronizations
}

var notebook pipe

// HTML shows an output below the cell. When it returns, the notebook has it: the program may end.
func HTML(text string) error { return notebook.show(display{Data: map[string]any{htmlType: text}}) }

// Update is HTML that takes the place of what was shown under the same name, in any cell.
func Update(name, text string) error {
	return notebook.show(display{Data: map[string]any{htmlType: text}, DisplayID: name})
}

func (p *pipe) show(d display) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return err
	}
	if err := p.to.Encode(d); err != nil {
		return fmt.Errorf("notebook: %w", err)
	}
	p.sent++
	sync := value{Address: syncTo, Value: p.sent}
	if err := p.to.Encode(display{Data: map[string]any{valueType: sync}}); err != nil {
		return fmt.Errorf("notebook: %w", err)
	}
	for {
		var v value
		if err := p.from.Decode(&v); err != nil {
			return fmt.Errorf("notebook: waiting for output %d to be shown: %w", p.sent, err)
		}
		if v.Address == syncFrom && v.Value == p.sent {
			return nil
		}
	}
}

func (p *pipe) open() error {
	if p.to != nil {
		return nil
	}
	if os.Getenv(pipeEnv) == "" {
		return ErrNoNotebook
	}
	gob.RegisterName(valueName, value{})
	to, err := os.OpenFile(os.Getenv(pipeEnv), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("notebook: %w", err)
	}
	from, err := os.OpenFile(os.Getenv(backEnv), os.O_RDONLY, 0)
	if err != nil {
		to.Close()
		return fmt.Errorf("notebook: %w", err)
	}
	p.to, p.from = gob.NewEncoder(to), gob.NewDecoder(from)
	return nil
}
