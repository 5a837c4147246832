package grammar

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkMask is the cost of a mask at 32000 tokens: known, where the state was met before; found, where
// the automaton knows its states and the tree of tokens is walked; cold, with an automaton that knows nothing.
func BenchmarkMask(b *testing.B) {
	for name, g := range map[string]*Grammar{
		"object": must(large().JSONObject()),
		"schema": must(large().JSONSchema([]byte(person))),
		"regex":  must(large().Regex(`([A-Z][a-z]{1,30}( [a-z]{1,20}){0,12}[.!?] ?)+`)),
	} {
		for _, how := range []string{"known", "found", "cold"} {
			b.Run(name+"/"+how, func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				bits := make([]uint32, large().vocab/32)
				m := g.Mask()
				if how == "cold" {
					g.automaton.forget()
				}
				for b.Loop() {
					b.StopTimer()
					m.Allowed(bits)
					ids := idsOf(bits)
					id := ids[r.IntN(len(ids))]
					if large().isEnd(id) {
						m = g.Mask()
					} else if err := m.Accept(id); err != nil {
						b.Fatal(err)
					}
					at := m.(*mask).at
					switch how {
					case "known":
						m.Allowed(bits)
					case "found":
						m.Allowed(bits)
						at.mask, at.opening = nil, nil
					case "cold":
						g.automaton.forget()
						at.mask, at.opening, at.next = nil, nil, [256]*state{}
					}
					b.StartTimer()
					m.Allowed(bits)
				}
			})
		}
	}
}
