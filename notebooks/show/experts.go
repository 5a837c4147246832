package show

import (
	"fmt"
	"html"
	"strings"

	"mix/serve"
)

// Choices is the table of the experts that the tokens of a text chose: a row a layer, a column a token. A
// cell is coloured by the first choice and names it, with the other choices and all weights in small print.
//
// pieces are the texts of the S tokens. It fails if the trace is of another number of them.
func Choices(pieces []string, tr *serve.Trace, experts int) (string, error) {
	var b strings.Builder
	b.WriteString(`<div style="overflow-x:auto"><table class="mix-experts" style="border-collapse:collapse;text-align:center"><tr><th style="text-align:left">layer</th>`)
	for _, p := range pieces {
		fmt.Fprintf(&b, `<th style="white-space:pre">%s</th>`, html.EscapeString(p))
	}
	b.WriteString("</tr>")
	for layer, chosen := range tr.RouterChosen {
		weights := tr.RouterWeights[layer]
		s, k := chosen.Dims[0], chosen.Dims[1]
		if s != len(pieces) {
			return "", fmt.Errorf("layer %d has choices of %d tokens, want %d", layer, s, len(pieces))
		}
		fmt.Fprintf(&b, `<tr><th style="text-align:left">%d</th>`, layer+1)
		for t := range s {
			if err := cell(&b, chosen.Ints[t*k:(t+1)*k], weights.Floats[t*k:(t+1)*k], experts); err != nil {
				return "", fmt.Errorf("layer %d, token %d: %w", layer, t, err)
			}
		}
		b.WriteString("</tr>")
	}
	b.WriteString(`</table></div><p class="mix-legend">expert `)
	for e := range experts {
		fmt.Fprintf(&b, `<span style="%s;padding:2px 8px;margin-right:4px">%d</span>`, colour(e, experts), e+1)
	}
	b.WriteString("</p>")
	return b.String(), nil
}

// cell shows one token's choices, best first. Experts are counted from 1, as people do.
func cell(b *strings.Builder, chosen []int32, weights []float32, experts int) error {
	for _, e := range chosen {
		if e < 0 || int(e) >= experts {
			return fmt.Errorf("expert %d, want 0 to %d", e, experts-1)
		}
	}
	fmt.Fprintf(b, `<td style="%s;padding:2px 6px;border:1px solid #fff;white-space:nowrap"><b>%d</b>`, colour(int(chosen[0]), experts), chosen[0]+1)
	for _, e := range chosen[1:] {
		fmt.Fprintf(b, `&thinsp;<small>%d</small>`, e+1)
	}
	b.WriteString(`<br/><small>`)
	for i, w := range weights {
		if i > 0 {
			b.WriteString(" · ")
		}
		fmt.Fprintf(b, "%.0f%%", 100*w)
	}
	b.WriteString(`</small></td>`)
	return nil
}

// colour is the style of an expert: evenly spread hues, light below dark text on any page.
func colour(e, experts int) string {
	return fmt.Sprintf("background:hsl(%d,70%%,%d%%);color:#111", 360*e/experts, 72+12*(e%2))
}
