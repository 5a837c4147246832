package data

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"mix/graph/token"
)

// DefaultSplit is Megatron's.
const DefaultSplit = "969,30,1"

// Spec says what a run is trained and evaluated on. One of Paths, SplitPaths, Mock, Documents and Chats is
// given.
//
// A path is the prefix of a dataset in Megatron's format, or a file whose content tells what it is: jsonl
// with texts, jsonl with conversations, or plain text with NUL bytes between documents. Files are
// tokenized, with the tokenizer's EOS after every document.
//
// Datasets in Megatron's format and made-up data are sampled in the order of Megatron's GPTDataset. The
// order of all else does not depend on the length of the run.
type Spec struct {
	Paths      []string    // paths, or weights and paths in turn: "0.3", "a", "0.7", "b"
	SplitPaths [3][]string // Paths of each part alone, rather than Split
	Mock       bool        // Megatron's made-up data; needs Vocab
	Documents  []string    // texts
	Chats      io.Reader   // jsonl with conversations, see ReadChat

	Split       string // weights of training, validation and test; "": DefaultSplit
	Seq         int    // S, tokens a sample
	Seed        uint32
	Steps       int // of training; 0: one epoch
	Global      int // samples a step
	EvalEvery   int // steps between evaluations; 0: never
	EvalBatches int // batches of Global samples an evaluation; 0: never
	Test        bool

	Tokenizer *token.Tokenizer // nil only for Megatron's format and made-up data
	Vocab     int              // ids at or above it are refused; 0: the tokenizer's size

	Key        string         // of a text in jsonl; "": "text"
	Template   token.Template // of conversations; 0: the tokenizer's own
	PrependBOS bool           // BOS before every text
	SkipBad    bool           // leave bad lines out and count them, rather than fail
	Workers    int            // that tokenize; 0: one a processor
	Cache      string         // folder where tokenized files are kept; "": in memory

	// Progress, if not nil, is told how many of a file's bytes are tokenized. Calls do not overlap.
	Progress func(path string, done, total int64)

	Pack           bool // texts whole in rows, each seeing itself only, rather than continuous windows
	ResetPositions bool // positions count from 0 in each document
	ResetAttention bool // documents do not see each other; conversations and packed texts never do
	MaskEOD        bool // no loss where the input is EOD
}

// Counts is how many samples of each part a run takes in all, 0 for all of one epoch. Validation has room
// for other samples at each evaluation, as Megatron has it; our trainer takes the first each time.
//
// Source: Megatron-LM, training/training.py, get_train_valid_test_num_samples.
func (s Spec) Counts() (n [3]int) {
	n[Train] = s.Steps * s.Global
	if s.validates() {
		n[Valid] = (s.Steps/s.EvalEvery + 1) * s.EvalBatches * s.Global
	}
	n[Test] = s.EvalBatches * s.Global
	return n
}

func (s Spec) validates() bool { return s.EvalEvery > 0 && s.EvalBatches > 0 }

// wants tells whether a part is asked for.
func (s Spec) wants(part int) bool {
	return part == Train || part == Valid && s.validates() || part == Test && s.Test
}

// Validate refuses what cannot be, by the name of the field.
func (s Spec) Validate() error {
	for _, f := range []struct {
		name         string
		value, least int
	}{{"Seq", s.Seq, 1}, {"Steps", s.Steps, 0}, {"Global", s.Global, 1}, {"EvalEvery", s.EvalEvery, 0},
		{"EvalBatches", s.EvalBatches, 0}, {"Vocab", s.Vocab, 0}, {"Workers", s.Workers, 0}} {
		if f.value < f.least || f.value > most {
			return fmt.Errorf("%s is %d, want %d to %d", f.name, f.value, f.least, most)
		}
	}
	if n := s.Counts(); max(n[Train], n[Valid], n[Test]) > most {
		return fmt.Errorf("%d steps of %d samples, evaluations of %d batches every %d steps: more than %d samples",
			s.Steps, s.Global, s.EvalBatches, s.EvalEvery, most)
	}
	given := 0
	for _, is := range []bool{len(s.Paths) > 0, s.perSplit(), s.Mock, s.Documents != nil, s.Chats != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return fmt.Errorf("%d kinds of data, want one of paths, paths of each split, made-up data, documents, conversations", given)
	case s.Split != "" && (s.perSplit() || s.Mock):
		return fmt.Errorf("split %q: made-up data and paths of each split have none", s.Split)
	case s.Mock && s.vocab() == 0:
		return errors.New("vocabulary of 0 ids, want at least 1 for made-up data")
	case s.Tokenizer == nil && (s.Documents != nil || s.Chats != nil):
		return errors.New("no tokenizer, want one for text")
	case s.Tokenizer != nil && s.Vocab > 0 && s.Tokenizer.VocabSize() > s.Vocab:
		return fmt.Errorf("the tokenizer has %d ids, want at most %d, the model's vocabulary", s.Tokenizer.VocabSize(), s.Vocab)
	}
	for part, paths := range s.SplitPaths {
		if s.perSplit() && s.wants(part) && len(paths) == 0 {
			return fmt.Errorf("no %s data, want paths for it as for the others, or no %[1]s", partNames[part])
		}
	}
	return nil
}

func (s Spec) perSplit() bool {
	return len(s.SplitPaths[Train])+len(s.SplitPaths[Valid])+len(s.SplitPaths[Test]) > 0
}

// vocab is the number of ids, 0 if that is not known.
func (s Spec) vocab() int {
	if s.Vocab == 0 && s.Tokenizer != nil {
		return s.Tokenizer.VocabSize()
	}
	return s.Vocab
}

// parseBlend splits weights from paths; weights are nil where there are none. One text may hold them all.
//
// Source: Megatron-LM, core/datasets/utils.py, get_blend_from_list.
func parseBlend(list []string) (paths []string, weights []float64, err error) {
	if len(list) == 1 && strings.ContainsAny(list[0], " \t\n") {
		if _, err := os.Stat(list[0]); err != nil {
			list = strings.Fields(list[0])
		}
	}
	if len(list) == 0 || len(list) > math.MaxUint16 {
		return nil, nil, fmt.Errorf("%d paths, want 1 to %d", len(list), math.MaxUint16)
	}
	if len(list)%2 == 1 {
		return list, nil, nil
	}
	bad := ""
	for i := 0; i < len(list); i += 2 {
		w, err := strconv.ParseFloat(list[i], 64)
		if err != nil {
			bad = list[i]
			continue
		}
		if !(w >= 0) || math.IsInf(w, 0) {
			return nil, nil, fmt.Errorf("weight of %s is %s, want a number of at least 0", list[i+1], list[i])
		}
		weights, paths = append(weights, w), append(paths, list[i+1])
	}
	if weights == nil {
		return list, nil, nil
	}
	if bad != "" {
		return nil, nil, fmt.Errorf("%q is no weight, want one before every path or before none", bad)
	}
	return paths, weights, nil
}
