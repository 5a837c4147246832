package lower

import (
	"regexp"
	"strings"
)

// value matches a value's name. Passes shift the numbers of all that follows, so lines are compared
// without them.
var value = regexp.MustCompile(`%(arg)?[0-9]+(#[0-9]+)?`)

// maxDiff bounds the table of a comparison: cells.
const maxDiff = 16 << 20

// diff shows the lines of after that before has not with +, and the reverse with -. Two texts whose
// changed parts are too long to be compared line by line are shown one after the other.
func diff(before, after string) string {
	a, b := strings.SplitAfter(before, "\n"), strings.SplitAfter(after, "\n")
	ka, kb := keys(a), keys(b)
	for len(ka) > 0 && len(kb) > 0 && ka[0] == kb[0] {
		a, b, ka, kb = a[1:], b[1:], ka[1:], kb[1:]
	}
	for len(ka) > 0 && len(kb) > 0 && ka[len(ka)-1] == kb[len(kb)-1] {
		a, b, ka, kb = a[:len(a)-1], b[:len(b)-1], ka[:len(ka)-1], kb[:len(kb)-1]
	}
	var out strings.Builder
	show := func(sign, line string) {
		out.WriteString(sign)
		out.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	i, j := 0, 0
	if w := len(b) + 1; len(a) > 0 && len(b) > 0 && (len(a)+1)*w <= maxDiff {
		common := make([]int32, (len(a)+1)*w) // longest common subsequence of a[i:], b[j:]
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if ka[i] == kb[j] {
					common[i*w+j] = common[(i+1)*w+j+1] + 1
				} else {
					common[i*w+j] = max(common[(i+1)*w+j], common[i*w+j+1])
				}
			}
		}
		for i < len(a) && j < len(b) {
			switch {
			case ka[i] == kb[j]:
				i, j = i+1, j+1
			case common[(i+1)*w+j] >= common[i*w+j+1]:
				show("- ", a[i])
				i++
			default:
				show("+ ", b[j])
				j++
			}
		}
	}
	for ; i < len(a); i++ {
		show("- ", a[i])
	}
	for ; j < len(b); j++ {
		show("+ ", b[j])
	}
	return out.String()
}

func keys(lines []string) []string {
	k := make([]string, len(lines))
	for i, l := range lines {
		k[i] = value.ReplaceAllString(l, "%")
	}
	return k
}
