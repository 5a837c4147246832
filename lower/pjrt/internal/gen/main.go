// Command gen reads pjrt_c_api.h and writes, into the current folder,
//
//	capi.go              Go form of every struct, enum and function index, one typed call a function
//	capi_layout_test.go  the same structs for the layout test
//	testdata/layout.txt  sizes and offsets as a C compiler sees them
//
// The header is the one in go-xla's module. The C compiler is needed here only: the layout test
// compares Go's view of the structs with the table.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	header := flag.String("h", "", "pjrt_c_api.h; default: the one of go-xla")
	flag.Parse()
	if err := run(*header); err != nil {
		log.Fatal(err)
	}
}

func run(path string) error {
	if path == "" {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gomlx/go-xla").Output()
		if err != nil {
			return fmt.Errorf("go list: %w", err)
		}
		path = filepath.Join(strings.TrimSpace(string(dir)), "pjrt", "pjrt_c_api.h")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	h, err := parse(string(raw))
	if err != nil {
		return err
	}
	table, err := layout(h.c(), filepath.Dir(path))
	if err != nil {
		return err
	}
	for name, src := range map[string]string{"capi.go": h.golang(), "capi_layout_test.go": h.goTable()} {
		out, err := format.Source([]byte(src))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(name, out, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join("testdata", "layout.txt"), table, 0o644)
}

// layout compiles and runs a C program.
func layout(src, include string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "gen")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, bin := filepath.Join(dir, "layout.c"), filepath.Join(dir, "layout")
	if err := os.WriteFile(c, []byte(src), 0o644); err != nil {
		return nil, err
	}
	var msg bytes.Buffer
	cc := exec.Command("cc", "-I"+include, "-o", bin, c)
	cc.Stderr = &msg
	if err := cc.Run(); err != nil {
		return nil, fmt.Errorf("cc: %w: %s", err, &msg)
	}
	return exec.Command(bin).Output()
}
