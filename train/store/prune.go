package store

import (
	"maps"
	"os"
	"slices"
)

// prune removes the checkpoints that need not stay. The one that was just saved stays. Damaged ones are not
// counted and not removed: somebody may want to look at them.
func (s *Store) prune(saved int) {
	if s.o.KeepLast == 0 {
		return
	}
	for _, step := range s.surplus(saved) {
		dir := s.path(step)
		// Renamed first, so that nobody finds a half of it.
		err := os.Rename(dir, dir+partial)
		if err == nil {
			err = os.RemoveAll(dir + partial)
		}
		if err != nil {
			// A checkpoint too many does not spoil the run, nor does it spoil what was saved.
			s.o.Log.Warn("old checkpoint not removed", "step", step, "error", err)
			continue
		}
		delete(s.known, step)
		s.o.Log.Info("old checkpoint removed", "step", step)
	}
}

// surplus lists the steps of whole checkpoints that are neither the one just saved, nor among the KeepLast
// newest, nor the best.
func (s *Store) surplus(saved int) []int {
	var whole []int
	for _, step := range slices.Sorted(maps.Keys(s.known)) {
		if !s.known[step].damaged {
			whole = append(whole, step)
		}
	}
	best, ok := s.best()
	spare := whole[:max(0, len(whole)-s.o.KeepLast)]
	return slices.DeleteFunc(spare, func(step int) bool {
		return step == saved || s.o.KeepBest && ok && step == best
	})
}

// Best is the step of the checkpoint that has the lowest score, the earliest of them; ok is false where no
// score is known. It waits for a save in the background.
func (s *Store) Best() (step int, score float64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		<-s.running
	}
	if step, ok = s.best(); ok {
		score = *s.known[step].score
	}
	return step, score, ok
}

func (s *Store) best() (step int, ok bool) {
	for _, at := range slices.Sorted(maps.Keys(s.known)) {
		e := s.known[at]
		if !e.damaged && e.score != nil && (!ok || *e.score < *s.known[step].score) {
			step, ok = at, true
		}
	}
	return step, ok
}
