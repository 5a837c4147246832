package api

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ask is a body of PUT /api, checked.
type ask struct {
	prompts       []string
	tokens        int
	logprobs      bool
	temperature   float64
	topK          int
	topP          float64 // 0 for all
	topPDecay     float64
	topPBound     float64
	bos           bool
	stopEOL       bool
	stopDouble    bool
	noNewline     bool
	seed          int // -1 for chance
	beams         int // 0 for no beam search
	stopToken     int
	lengthPenalty float64
	start         time.Time
}

// saying is an answer that is a bare string.
type saying struct {
	status  int
	message string
}

func (s *saying) Error() string { return s.message }

// fields reads the fields of a body in their order; after the first refusal it reads nothing.
type fields struct {
	raw     map[string]json.RawMessage
	era     Era
	refusal *saying
}

func (f *fields) refuse(status int, message string) {
	if f.refusal == nil {
		f.refusal = &saying{status, message}
	}
}

// demand refuses with status 200 if a condition does not hold.
func (f *fields) demand(holds bool, message string) {
	if !holds {
		f.refuse(http.StatusOK, message)
	}
}

func (f *fields) has(name string) bool { _, ok := f.raw[name]; return ok }

// number reads a field that is there. Python tells 1 from 1.0, and True counts as 1 in places.
func (f *fields) number(name string, into *float64, whole, fraction, truth bool, message string) {
	raw, text := f.raw[name], string(f.raw[name])
	switch {
	case text == "true" && truth:
		*into = 1
	case text == "false" && truth:
		*into = 0
	default:
		isFraction := strings.ContainsAny(text, ".eE")
		f.demand(one(raw, into) && text != "null" && (isFraction && fraction || !isFraction && whole), message)
	}
}

func (f *fields) integer(name string, into *int, truth bool, message string) {
	v := float64(*into)
	f.number(name, &v, true, false, truth, message)
	*into = int(max(-1<<52, min(1<<52, v)))
}

// boolean reads a field, if it is there.
func (f *fields) boolean(name string, into *bool) {
	if f.has(name) {
		text := string(f.raw[name])
		f.demand(text == "true" || text == "false", name+" must be a boolean value")
		*into = text == "true"
	}
}

// readAsk checks a body as Megatron's server does: the same checks, in the same order, with the same words.
func readAsk(raw map[string]json.RawMessage, era Era) (ask, *saying) {
	f := &fields{raw: raw, era: era}
	a := ask{tokens: 64, temperature: 1, seed: -1, stopToken: -1, lengthPenalty: 1}
	f.prompts(&a)
	truth := era == EraHead // there, True counts as 1 everywhere
	if f.has("tokens_to_generate") {
		f.integer("tokens_to_generate", &a.tokens, true, "tokens_to_generate must be an integer greater than 0")
		f.demand(a.tokens >= 0, "tokens_to_generate must be an integer greater than or equal to 0")
	}
	f.boolean("logprobs", &a.logprobs)
	f.demand(a.tokens > 0 || a.logprobs, "tokens_to_generate=0 implies logprobs should be True")
	if f.has("temperature") {
		const want = "temperature must be a positive number less than or equal to 100.0"
		f.number("temperature", &a.temperature, true, true, truth, want)
		f.demand(a.temperature > 0 && a.temperature <= 100, want)
	}
	if f.has("top_k") {
		f.integer("top_k", &a.topK, truth, "top_k must be an integer equal to or greater than 0 and less than or equal to 1000")
		f.demand(a.topK >= 0 && a.topK <= 1000, "top_k must be equal to or greater than 0 and less than or equal to 1000")
	}
	f.topP(&a)
	f.boolean("add_BOS", &a.bos)
	for _, p := range a.prompts {
		f.demand(p != "" || a.bos, "Empty prompts require add_BOS=true")
	}
	f.boolean("stop_on_double_eol", &a.stopDouble)
	f.boolean("stop_on_eol", &a.stopEOL)
	f.boolean("prevent_newline_after_colon", &a.noNewline)
	if f.has("random_seed") {
		f.integer("random_seed", &a.seed, true, "random_seed must be integer")
		f.demand(a.seed >= 0, "random_seed must be a positive integer")
	}
	if era == Era2024 {
		var unused bool // prompts are never logged
		f.boolean("no_log", &unused)
	}
	f.beam(&a)
	if f.has("stop_token") {
		f.integer("stop_token", &a.stopToken, true, "stop_token must be an integer")
	}
	if f.has("length_penalty") {
		f.number("length_penalty", &a.lengthPenalty, false, true, false, "length_penalty must be a float")
	}
	return a, f.refusal
}

func (f *fields) prompts(a *ask) {
	const notList = "prompts is not a list of strings"
	for _, c := range []struct {
		refused bool
		message string
	}{
		{!f.has("prompts"), "prompts argument required"},
		{f.has("max_len"), "max_len is no longer used.  Replace with tokens_to_generate"},
		{f.has("sentences"), "sentences is no longer used.  Replace with prompts"},
	} {
		if c.refused {
			f.refuse(http.StatusBadRequest, c.message)
			return
		}
	}
	var list []*json.RawMessage
	if !one(f.raw["prompts"], &list) || absent(f.raw["prompts"]) {
		f.refuse(http.StatusBadRequest, notList)
		return
	}
	switch {
	case len(list) == 0:
		f.refuse(http.StatusBadRequest, "prompts is empty")
	case len(list) > 128:
		f.refuse(http.StatusBadRequest, "Maximum number of prompts is 128")
	}
	for _, raw := range list {
		var p *string
		if raw == nil || !one(*raw, &p) || p == nil {
			f.refuse(http.StatusBadRequest, notList)
			return
		}
		a.prompts = append(a.prompts, *p)
	}
}

func (f *fields) topP(a *ask) {
	if f.has("top_p") {
		f.number("top_p", &a.topP, false, true, false, "top_p must be a positive float less than or equal to 1.0")
		f.demand(a.topP <= 0 || a.topK == 0, "cannot set both top-k and top-p samplings.")
		f.demand(a.topP >= 0 && a.topP <= 1, "top_p must be less than or equal to 1.0")
	}
	if f.has("top_p_decay") {
		f.number("top_p_decay", &a.topPDecay, false, true, false, "top_p_decay must be a positive float less than or equal to 1.0")
		f.demand(a.topP != 0, "top_p_decay cannot be set without top_p")
		f.demand(a.topPDecay >= 0 && a.topPDecay <= 1, "top_p_decay must be less than or equal to 1.0")
	}
	if f.has("top_p_bound") {
		f.number("top_p_bound", &a.topPBound, false, true, false, "top_p_bound must be a positive float less than or equal to top_p")
		f.demand(a.topP != 0, "top_p_bound cannot be set without top_p")
		f.demand(a.topPBound > 0 && a.topPBound <= a.topP, "top_p_bound must be greater than 0 and less than top_p")
	}
}

func (f *fields) beam(a *ask) {
	if !f.has("beam_width") {
		return
	}
	if f.era == EraHead {
		f.refuse(http.StatusBadRequest, "Beam search is no longer supported.")
		return
	}
	f.integer("beam_width", &a.beams, true, "beam_width must be integer")
	f.demand(a.beams >= 1, "beam_width must be an integer > 1")
	f.demand(len(a.prompts) == 1, "When doing beam_search, batch size must be 1")
}

// writePython answers with JSON as Python's server writes it: sorted, compact, in ASCII.
func writePython(w http.ResponseWriter, status int, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	b = append(ascii(b), '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that left is no error
	return nil
}

// ascii escapes all characters of JSON that are not printable ASCII.
func ascii(b []byte) []byte {
	var out bytes.Buffer
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r < 0x7f {
			out.WriteByte(b[0])
		} else {
			escape(&out, r)
		}
		b = b[n:]
	}
	return out.Bytes()
}

// escape writes a character as \u and four digits, or as two of those.
func escape(out *bytes.Buffer, r rune) {
	const digits = "0123456789abcdef"
	unit := func(u rune) {
		out.WriteString(`\u`)
		for s := 12; s >= 0; s -= 4 {
			out.WriteByte(digits[u>>s&15])
		}
	}
	if r > 0xffff {
		r -= 0x10000
		unit(0xd800 + r>>10)
		r = 0xdc00 + r&0x3ff
	}
	unit(r)
}

// floats writes numbers as Python does: the shortest double, with a point or an exponent.
func floats(all []float32) []json.RawMessage {
	out := make([]json.RawMessage, len(all))
	for i, v := range all {
		x := float64(v)
		if math.IsInf(x, 0) || math.IsNaN(x) {
			x = -9999 // JSON has neither
		}
		text := strconv.FormatFloat(x, 'f', -1, 64)
		if x != 0 && (x < 1e-4 && x > -1e-4 || x >= 1e16 || x <= -1e16) {
			text = strconv.FormatFloat(x, 'e', -1, 64)
		} else if !strings.Contains(text, ".") {
			text += ".0"
		}
		out[i] = json.RawMessage(text)
	}
	return out
}
