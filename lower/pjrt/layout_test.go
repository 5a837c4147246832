package pjrt

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The structs have in Go the sizes and offsets that they have in C.
func TestLayout(t *testing.T) {
	raw, err := os.ReadFile("testdata/layout.txt")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		f := strings.Fields(line)
		switch {
		case f[0] == "api":
			require.Equal(t, f[1:], []string{fmt.Sprint(apiHeaderSize), fmt.Sprint(len(fnNames))})
		case strings.HasPrefix(f[0], "size"):
			name := strings.ToLower(f[0][4:5]) + f[0][5:]
			require.Equal(t, f[1], fmt.Sprint(layoutTypes[name].size), name)
		default:
			ty := layoutTypes[f[0]].t
			require.NotNil(t, ty, f[0])
			got := []string{f[0], fmt.Sprint(ty.Size())}
			for i := 1; i < ty.NumField(); i++ { // 0 is structs.HostLayout
				got = append(got, fmt.Sprint(ty.Field(i).Offset))
			}
			require.Equal(t, f, got)
			seen[f[0]] = true
		}
	}
	require.Len(t, seen, len(layoutTypes))
}
