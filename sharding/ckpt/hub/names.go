package hub

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// checkName refuses names that would leave their folder or that no repository has: absolute ones, ones with
// .., empty or .git elements, backslashes, control characters, and what is of ours inside a folder.
func checkName(name string) error {
	elements := strings.Split(name, "/")
	switch {
	case !fs.ValidPath(name) || name == ".",
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }),
		slices.ContainsFunc(elements, func(e string) bool { return strings.EqualFold(e, ".git") || len(e) > 200 }),
		strings.HasPrefix(strings.ToLower(name)+"/", ".cache/"):
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}

// chooser picks files by name.
type chooser struct{ include, exclude []*regexp.Regexp }

func newChooser(o Options) chooser {
	var c chooser
	for _, p := range o.Include {
		c.include = append(c.include, glob(p))
	}
	for _, p := range o.Exclude {
		c.exclude = append(c.exclude, glob(p))
	}
	return c
}

// wants tells whether a name matches an include pattern, or there is none, and no exclude pattern.
func (c chooser) wants(name string) bool {
	matches := func(r *regexp.Regexp) bool { return r.MatchString(name) }
	return (len(c.include) == 0 || slices.ContainsFunc(c.include, matches)) && !slices.ContainsFunc(c.exclude, matches)
}

// glob reads a pattern as huggingface_hub does, by the rules of Python's fnmatch: * and ? match slashes too,
// [a-z] and [!a-z] are sets, a [ without its ] is itself, and a pattern ending in / means all that is below.
func glob(pattern string) *regexp.Regexp {
	if strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for runes := []rune(pattern); len(runes) > 0; {
		r := runes[0]
		runes = runes[1:]
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			n := set(&b, runes)
			runes = runes[n:]
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String()) // every piece is quoted or ours
}

// set writes the set that begins after a [ and gives how many runes it took: 0 for a [ that is itself.
func set(b *strings.Builder, runes []rune) int {
	from := 0
	if len(runes) > 0 && runes[0] == '!' {
		from = 1
	}
	end := -1
	for i := from + 1; i < len(runes); i++ { // a ] in first place belongs to the set
		if runes[i] == ']' {
			end = i
			break
		}
	}
	if end < 0 {
		b.WriteString(`\[`)
		return 0
	}
	var ranges strings.Builder
	for i := from; i < end; i++ {
		lo, hi := runes[i], runes[i]
		if i+2 < end && runes[i+1] == '-' {
			hi = runes[i+2]
			i += 2
		}
		if lo <= hi { // a range that runs backwards holds nothing
			fmt.Fprintf(&ranges, `\x{%x}-\x{%x}`, lo, hi)
		}
	}
	switch {
	case ranges.Len() > 0 && from == 1:
		b.WriteString("[^" + ranges.String() + "]")
	case ranges.Len() > 0:
		b.WriteString("[" + ranges.String() + "]")
	case from == 1:
		b.WriteString(".")
	default:
		b.WriteString(`[^\x{0}-\x{10ffff}]`) // nothing
	}
	return end + 1
}
