package sched

import (
	"crypto/sha256"
	"encoding/binary"
)

// key names what a block of a prompt holds: its chunk, and which of the chunk's blocks it is. A block does not
// stand for itself, since all of a chunk's positions are computed by one run of a program.
type key struct {
	// chunk is a digest of the salt and of all tokens up to the chunk's end. It is a whole SHA-256, so that
	// nobody finds two prompts with one key, and reads another's cache.
	chunk [sha256.Size]byte
	block int32
}

// keys are those of the blocks of a prompt's whole chunks, of so many tokens and blocks. The first chunk is
// chained to the salt's digest, each other to the one before.
func keys(salt string, prompt []int32, tokens, blocks int) []key {
	n := len(prompt) / tokens
	if n == 0 {
		return nil
	}
	all := make([]key, 0, n*blocks)
	// Hashed twice, no salt is a beginning of a chain: a chunk's text is longer than a digest.
	before := sha256.Sum256([]byte(salt))
	before = sha256.Sum256(before[:])
	text := make([]byte, 0, len(before)+4*tokens)
	for i := range n {
		text = append(text[:0], before[:]...)
		for _, t := range prompt[i*tokens : (i+1)*tokens] {
			text = binary.LittleEndian.AppendUint32(text, uint32(t))
		}
		before = sha256.Sum256(text)
		for b := range blocks {
			all = append(all, key{before, int32(b)})
		}
	}
	return all
}

// reusable counts the first blocks of r's prompt that are in the cache: whole chunks, and not the one with the
// last token.
func (s *Scheduler) reusable(r *request) int {
	a := s.o.Chunk / s.o.Size // blocks a chunk
	most := min(len(r.keys), (len(r.Prompt)-1)/s.o.Chunk*a)
	n := 0
	for n < most {
		if _, ok := s.blocks.cached[r.keys[n]]; !ok {
			break
		}
		n++
	}
	return n / a * a
}

// keep leaves those of r's blocks in the cache that are whole chunks of its prompt.
func (s *Scheduler) keep(r *request) {
	for end := min(r.done/s.o.Size, len(r.keys)); r.kept < end; r.kept++ {
		s.blocks.name(r.table[r.kept], r.keys[r.kept])
	}
}
