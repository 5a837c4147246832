package main

import (
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The generated files are those of the header that go.mod names.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gomlx/go-xla").Output()
	if err != nil {
		t.Skip("needs the go command: ", err)
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "pjrt", "pjrt_c_api.h"))
	if err != nil {
		t.Skip("needs go-xla in the module cache: ", err)
	}
	h, err := parse(string(raw))
	require.NoError(t, err)
	for name, src := range map[string]string{"capi.go": h.golang(), "capi_layout_test.go": h.goTable()} {
		want, err := format.Source([]byte(src))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join("..", "..", name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "%s: run go generate", name)
	}
}

func TestParse(t *testing.T) {
	const src = `
#define PJRT_API_MINOR 7
typedef struct PJRT_Thing PJRT_Thing;
typedef enum { PJRT_Kind_A, PJRT_Kind_B = 5, PJRT_Kind_C, } PJRT_Kind;
struct PJRT_Do_Args {
  size_t struct_size; // a comment; with a semicolon
  const PJRT_Thing* thing;
  PJRT_Kind type;
  void (*deleter)(PJRT_Thing* t);
  void* user_arg;
};
PJRT_DEFINE_STRUCT_TRAITS(PJRT_Do_Args, user_arg);
typedef PJRT_Error* PJRT_Do(PJRT_Do_Args* args);
  _PJRT_API_STRUCT_FIELD(PJRT_Do);
`
	h, err := parse(src)
	require.NoError(t, err)
	require.Equal(t, "7", h.minor)
	require.Equal(t, []enum{{"PJRT_Kind", []string{"PJRT_Kind_A", "PJRT_Kind_B", "PJRT_Kind_C"}, []int{0, 5, 6}}}, h.enums)
	require.Equal(t, []record{{"PJRT_Do_Args", "user_arg", []field{
		{"struct_size", "structSize", "int"}, {"thing", "thing", "thingHandle"}, {"type", "type_", "Kind"},
		{"deleter", "deleter", "uintptr"}, {"user_arg", "userArg", "uintptr"},
	}}}, h.structs)
	require.Equal(t, []proto{{false, "PJRT_Do", "PJRT_Do_Args"}}, h.protos)
	_, err = parse("struct X {\n  int a;\n};")
	require.ErrorContains(t, err, "no PJRT_API_MINOR")
	_, err = parse("#define PJRT_API_MINOR 7\nstruct PJRT_X {\n  strange a;\n};")
	require.ErrorContains(t, err, `PJRT_X: unknown type "strange"`)
}
