package api

import (
	"mix/serve/grammar"
	"net/http"
	"os"
	"testing"
)

func TestZZServe(t *testing.T) {
	if os.Getenv("ZZ") == "" {
		t.Skip()
	}
	f := newFake(t)
	o := options(f)
	c, err := grammar.New(f.t, f.t.VocabSize())
	if err != nil {
		t.Fatal(err)
	}
	o.Grammar = Masks(c)
	o.Keys = []string{"k"}
	s := newServer(t, o)
	f.script = nil
	_ = http.ListenAndServe("127.0.0.1:5997", s)
}
