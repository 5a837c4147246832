package ckpt

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCRC(t *testing.T) {
	// Source: RFC 3720, appendix B.4 (bytes there in the order of the wire), and the usual check value.
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	for text, want := range map[string]string{string(make([]byte, 32)): "8a9136aa", strings.Repeat("\xff", 32): "62a8ab43",
		string(up): "46dd794e", "123456789": "e3069283", "": "00000000"} {
		require.Equal(t, want, CRCOf([]byte(text)).String())
		b, err := json.Marshal(CRCOf([]byte(text)))
		require.NoError(t, err)
		var back CRC
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, CRCOf([]byte(text)), back)
	}
	for _, text := range []string{`""`, `"123"`, `"E3069283"`, `"0xe30692"`, `"e306928300"`, `"zzzzzzzz"`, `12345678`} {
		var c CRC
		require.Error(t, json.Unmarshal([]byte(text), &c), text)
	}
}

func exampleManifest() Manifest {
	return NewManifest([]Sum{{"optimizer/first/model.safetensors", 1 << 40, 7}, {"config.json", 0, 0xe3069283}},
		json.RawMessage(`{"step":60,"big":12345678901234567890,"text":"a<b\u0001"}`))
}

func TestManifestReadsBack(t *testing.T) {
	m := exampleManifest()
	b, err := m.Text()
	require.NoError(t, err)
	require.True(t, json.Valid(b))
	require.Contains(t, string(b), `"crc32c": "e3069283"`)
	got, err := ParseManifest(b)
	require.NoError(t, err)
	require.JSONEq(t, string(m.State), string(got.State))
	require.Contains(t, string(got.State), "12345678901234567890")
	got.State = m.State
	require.Equal(t, m, got)
	require.Equal(t, "config.json", got.Files[0].Name, "sorted")

	b, err = NewManifest(nil, nil).Text()
	require.NoError(t, err)
	got, err = ParseManifest(b)
	require.NoError(t, err)
	require.Equal(t, "null", string(got.State))
}

func TestManifestNoticesEveryChange(t *testing.T) {
	b, err := exampleManifest().Text()
	require.NoError(t, err)
	for i := range b {
		_, err := ParseManifest(b[:i])
		require.Error(t, err, "cut after %d bytes", i)
		for bit := range 8 {
			b[i] ^= 1 << bit
			_, err := ParseManifest(b)
			require.Error(t, err, "bit %d of byte %d", bit, i)
			require.NotContains(t, err.Error(), "\n")
			b[i] ^= 1 << bit
		}
	}
	_, err = ParseManifest(append(b, '\n'))
	require.Error(t, err)
}

func TestManifestRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(m *Manifest)
		want   string
	}{
		{"another format", func(m *Manifest) { m.Format = "zarr" }, `format "zarr", want "mix"`},
		{"another version", func(m *Manifest) { m.Version = 2 }, "version 2, want 1"},
		{"a state that is no JSON", func(m *Manifest) { m.State = json.RawMessage("{") }, "state is not valid JSON"},
		{"a file elsewhere", func(m *Manifest) { m.Files[0].Name = "../x" }, `file "../x", want a path inside the folder`},
		{"a file from the root", func(m *Manifest) { m.Files[0].Name = "/x" }, `file "/x", want`},
		{"the folder itself", func(m *Manifest) { m.Files[0].Name = "." }, `file ".", want`},
		{"no name", func(m *Manifest) { m.Files[0].Name = "" }, `file "", want`},
		{"a name of two lines", func(m *Manifest) { m.Files[0].Name = "a\nb" }, `file "a\nb", want`},
		{"a file twice", func(m *Manifest) { m.Files[0].Name = m.Files[1].Name }, "is there twice"},
		{"itself", func(m *Manifest) { m.Files[0].Name = ManifestFile }, `file "manifest.json" is there twice`},
		{"a negative size", func(m *Manifest) { m.Files[0].Bytes = -1 }, "-1 bytes, want at least 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := exampleManifest()
			tt.change(&m)
			_, err := m.Text()
			require.ErrorContains(t, err, tt.want)
			require.Error(t, m.Write(t.TempDir()))
		})
	}
	for text, want := range map[string]string{
		``:                   "not valid JSON",
		`[]`:                 "want an object",
		`{}`:                 `format "", want "mix"`,
		`{"format":1}`:       `"format"`,
		`{"a":1}`:            `unknown field "a"`,
		`{"files":{}}`:       `"files"`,
		`{"files":[{"x":1}]`: "not valid JSON",
		`{"format":"mix","version":1,"files":[{"x":1}],"state":1}`: `unknown field "x"`,
		`{"format":"mix","version":1.5,"files":[],"state":1}`:      `"version"`,
		`{"format":"mix","version":1,"files":[]}`:                  "state is not valid JSON",
		`{"format":"mix","format":"mix"}`:                          `"format" is there twice`,
	} {
		_, err := parseManifest([]byte(text))
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "\n")
	}
}

// manifested is a folder with files and their manifest.
func manifested(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	var sums []Sum
	for name, text := range map[string]string{"config.json": "{}", "empty": "", "sub/model.safetensors": strings.Repeat("x", 20<<20), "model.safetensors": "y"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		sums = append(sums, Sum{name, int64(len(text)), CRCOf([]byte(text))})
	}
	require.NoError(t, NewManifest(sums, json.RawMessage(`{"a":1}`)).Write(dir))
	return dir
}

func TestVerify(t *testing.T) {
	put := func(name, text string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	tests := []struct {
		name   string
		change func(dir string) error
		want   []string // of all problems; none: it is whole
	}{
		{"as it was", func(string) error { return nil }, nil},
		{"a note beside it", put("notes.txt", "x"), nil},
		{"a file is missing", func(dir string) error { return os.Remove(filepath.Join(dir, "config.json")) }, []string{"config.json: no such file"}},
		{"a file is shorter", func(dir string) error { return os.Truncate(filepath.Join(dir, "sub/model.safetensors"), 1<<20) },
			[]string{"sub/model.safetensors: 1048576 bytes, want 20971520"}},
		{"a file is longer", put("empty", "x"), []string{"empty: 1 bytes, want 0"}},
		{"a byte is another", put("model.safetensors", "z"), []string{"model.safetensors: CRC-32C " + CRCOf([]byte("z")).String() + ", want " + CRCOf([]byte("y")).String()}},
		{"a folder for a file", func(dir string) error {
			return orElse(os.Remove(filepath.Join(dir, "empty")), func() error { return os.Mkdir(filepath.Join(dir, "empty"), 0o700) })
		}, []string{"empty: "}},
		{"weights that are not listed", put("sub/model.safetensors.index.json", "{}"), []string{"sub/model.safetensors.index.json: not in manifest.json"}},
		{"several", func(dir string) error {
			return orElse(put("config.json", "[]")(dir), func() error { return put("model.safetensors", "")(dir) })
		},
			[]string{"config.json: CRC-32C ", "model.safetensors: 0 bytes, want 1"}},
		{"no manifest", func(dir string) error { return os.Remove(filepath.Join(dir, ManifestFile)) }, []string{"manifest.json: no such file"}},
		{"a torn manifest", func(dir string) error { return os.Truncate(filepath.Join(dir, ManifestFile), 100) }, []string{"manifest.json: damaged checkpoint: the text does not end"}},
		{"an empty manifest", func(dir string) error { return os.Truncate(filepath.Join(dir, ManifestFile), 0) }, []string{"manifest.json: damaged checkpoint: 0 bytes, want"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := manifested(t)
			require.NoError(t, tt.change(dir))
			m, err := Verify(dir)
			if tt.want == nil {
				require.NoError(t, err)
				require.Len(t, m.Files, 4)
				return
			}
			require.ErrorIs(t, err, ErrDamaged)
			require.NotContains(t, err.Error(), "\n")
			var d *Damage
			require.ErrorAs(t, err, &d)
			require.Len(t, d.List, len(tt.want))
			for i, want := range tt.want {
				require.ErrorContains(t, d.List[i], want)
				require.ErrorContains(t, d.List[i], dir)
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func orElse(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

// Whatever the text, reading a manifest gives an error of one line, or one that is equal to itself after it
// is written again.
func FuzzManifest(f *testing.F) {
	b, err := exampleManifest().Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-len(manifestEnd)])
	f.Add([]byte(`{"format":"mix","version":1,"files":[{"name":"a","bytes":1,"crc32c":"00000000"}],"state":[]`))
	f.Add([]byte(`{"format":"mix","version":1,"files":null,"state":"\u2028"`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := ParseManifest(body); err != nil {
			require.NotContains(t, err.Error(), "\n")
		}
		m, err := ParseManifest(fmt.Append(nil, string(body), strings.Replace(manifestEnd, "00000000", CRCOf(body).String(), 1)))
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		text, err := m.Text()
		require.NoError(t, err)
		again, err := ParseManifest(text)
		require.NoError(t, err)
		a, err := json.Marshal(m.State) // without white space
		require.NoError(t, err)
		b, err := json.Marshal(again.State)
		require.NoError(t, err)
		require.Equal(t, string(a), string(b))
		require.Equal(t, append([]Sum{}, m.Files...), append([]Sum{}, again.Files...))
	})
}
