package gpu

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Report is all that a session measured.
type Report struct {
	Device   string    `json:"device"` // what PJRT calls it
	Platform string    `json:"platform"`
	Chip     string    `json:"chip,omitempty"` // whose rates percentages are of
	Date     string    `json:"date"`
	Small    bool      `json:"small"` // sizes were tiny, rates say nothing
	Failed   bool      `json:"failed"`
	Parity   []Parity  `json:"parity"`
	Rates    []Rate    `json:"rates"`
	Tiles    []Tuned   `json:"tiles"`
	Serving  []Served  `json:"serving"`
	Training []Trained `json:"training"`
	Skipped  []Skipped `json:"skipped"`
}

// Skipped is what was not measured.
type Skipped struct {
	Part string `json:"part"`
	Why  string `json:"why"`
}

// Print writes the report as text: of parity the sums and the failures.
func (r *Report) Print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\n%s, chip %s, %s\n", r.Device, orUnknown(r.Chip), r.Date)
	if r.Small {
		fmt.Fprintf(w, "tiny sizes: rates say nothing\n")
	}
	passed := 0
	for _, p := range r.Parity {
		if p.Pass {
			passed++
		} else {
			fmt.Fprintf(w, "%s\n", p)
		}
	}
	if len(r.Parity) > 0 {
		fmt.Fprintf(w, "parity: %d of %d kernels and shapes\n", passed, len(r.Parity))
	}
	section(w, r.Rates, "\nproducts\ttokens\tTFLOP/s\tof dense\tof peak\tms")
	section(w, r.Tiles, "\ntile\trows a group\twas\tis\ttiles tried\tus before\tus")
	section(w, r.Serving, "\nserving\tlayers\tbatch\tcontext\ttokens/s\tms\tof memory's rate\tof peak")
	section(w, r.Training, "\ntraining\tlayers\ttokens a step\ttokens/s\tTFLOP/s\tMFU\tat most\ts a step\tof products\tof state\tits GB")
	section(w, r.Skipped, "\nnot measured")
	return w.Flush()
}

// section prints rows below a heading, nothing without any.
func section[T fmt.Stringer](w io.Writer, rows []T, heading string) {
	for i, row := range rows {
		if i == 0 {
			fmt.Fprintln(w, heading)
		}
		fmt.Fprintln(w, row)
	}
}

func (s Skipped) String() string { return s.Part + "\t" + s.Why }

// percent is a share for people, "-" where it is not known.
func percent(share float64) string {
	if share == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*share)
}
