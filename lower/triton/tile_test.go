package triton_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
)

func TestDefaultTableServesEveryKernel(t *testing.T) {
	table := triton.Default()
	for _, kernel := range []string{"up", "grouped", "transposed", "outer", "decode_up", "decode_down", "linear", "flash", "flash_dq", "flash_dkv", "paged", "fp8"} {
		for _, e := range []triton.Elem{triton.F32, triton.F16, triton.BF16} {
			for _, rows := range []int{1, 16, 17, 64, 1 << 20} {
				tile, err := table.Choose(kernel, e, rows)
				require.NoError(t, err, "%s of %s, %d rows", kernel, e, rows)
				require.GreaterOrEqual(t, tile.M, min(rows, 16))
			}
		}
	}
	_, err := table.Choose("up", triton.I32, 1)
	require.NoError(t, err, "rows of any element take what has none of its own")
	_, err = table.Choose("none", triton.F32, 1)
	require.ErrorContains(t, err, "no row for none of f32 and 1 rows")
}

func TestChooseTakesTheFirstRowThatFits(t *testing.T) {
	table := triton.Default()
	few, err := table.Choose("up", triton.BF16, 2)
	require.NoError(t, err)
	many, err := table.Choose("up", triton.BF16, 1024)
	require.NoError(t, err)
	require.Equal(t, 16, few.M)
	require.Equal(t, 128, many.M)
}

func TestTableIsWrittenAsItIsRead(t *testing.T) {
	text, err := os.ReadFile("tiles.json")
	require.NoError(t, err)
	table, err := triton.ParseTable(text)
	require.NoError(t, err)
	again, err := table.JSON()
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
}

func TestParseTableRefuses(t *testing.T) {
	const good = `"m":16,"n":16,"k":16,"group":1,"split":1,"warps":4,"stages":2`
	for _, test := range []struct{ name, text, want string }{
		{"no JSON", `{`, "unexpected end of JSON"},
		{"nothing", `[]`, "the table is empty"},
		{"no power of two", `[{"kernel":"up","tile":{"m":48,"n":16,"k":16,"group":1,"split":1,"warps":4,"stages":2}}]`, "tile m is 48, wanted a power of two from 16 to 512"},
		{"no warps", `[{"kernel":"up","tile":{"m":16,"n":16,"k":16,"group":1,"split":1,"stages":2}}]`, "tile warps is 0"},
		{"unknown element", `[{"kernel":"up","elem":"f64","tile":{` + good + `}}]`, `element "f64"`},
		{"rows below 0", `[{"kernel":"up","rows":-1,"tile":{` + good + `}}]`, "-1 rows"},
		{"unknown library", `[{"kernel":"flash","tile":{` + good + `},"library":"cutlass"}]`, `library "cutlass" for flash, wanted none, or cudnn for flash`},
		{"a library for another kernel", `[{"kernel":"flash_dq","tile":{` + good + `},"library":"cudnn"}]`, `library "cudnn" for flash_dq`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := triton.ParseTable([]byte(test.text))
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestWithPutsAChoiceWhereItIsFound(t *testing.T) {
	table := triton.Default()
	tile := triton.Tile{M: 32, N: 32, K: 32, Group: 3, Split: 1, Warps: 4, Stages: 1}
	for _, rows := range []int{16, 17, 64, 300, 0} {
		after := table.With(triton.Choice{Kernel: "grouped", Elem: "bf16", Rows: rows, Tile: tile})
		found, err := after.Choose("grouped", triton.BF16, max(rows, 1<<20*(1-min(rows, 1))))
		require.NoError(t, err)
		require.Equal(t, tile, found, "%d rows", rows)
		for _, other := range []triton.Elem{triton.F32, triton.F16} {
			before, err := table.Choose("grouped", other, rows)
			require.NoError(t, err)
			found, err := after.Choose("grouped", other, rows)
			require.NoError(t, err)
			require.Equal(t, before, found, other)
		}
	}
	again := table.With(table[3])
	require.Equal(t, table, again)
}

func TestCandidatesFitTheChip(t *testing.T) {
	for _, kernel := range []string{"up", "grouped", "transposed", "outer", "decode_up", "decode_down", "linear", "flash", "flash_dq", "flash_dkv", "paged", "fp8"} {
		for _, rows := range []int{1, 64, 4096} {
			all := triton.Candidates(kernel, triton.BF16, rows)
			require.NotEmpty(t, all, "%s, %d rows", kernel, rows)
			require.Less(t, len(all), 150, "%s, %d rows: each is compiled and timed", kernel, rows)
			for _, c := range all {
				text, err := triton.Table{{Kernel: kernel, Tile: c}}.JSON()
				require.NoError(t, err)
				_, err = triton.ParseTable(text)
				require.NoError(t, err)
			}
		}
	}
}

func TestTableChoosesALibrary(t *testing.T) {
	table := triton.Default()
	for _, c := range table {
		require.Empty(t, c.Library, "no library was measured: %v", c)
	}
	tile, err := table.Choose("flash", triton.BF16, 4096)
	require.NoError(t, err)
	text, err := table.With(triton.Choice{Kernel: "flash", Elem: "bf16", Tile: tile, Library: triton.CuDNN}).JSON()
	require.NoError(t, err)
	require.Contains(t, string(text), `"library":"cudnn"`)
	after, err := triton.ParseTable(text)
	require.NoError(t, err)
	require.Equal(t, triton.CuDNN, after.Library("flash", triton.BF16, 4096))
	require.Empty(t, after.Library("flash", triton.F16, 4096))
	require.Empty(t, after.Library("flash_dq", triton.BF16, 4096))
	require.Empty(t, after.Library("none", triton.BF16, 4096))
	after = after.With(triton.Choice{Kernel: "flash", Elem: "bf16", Tile: tile})
	require.Empty(t, after.Library("flash", triton.BF16, 4096), "a choice takes the library of the one before away")
}
