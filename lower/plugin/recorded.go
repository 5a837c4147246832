package plugin

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// recordFolder is the folder in which Python's installers describe the CUDA plugin's package.
var recordFolder = regexp.MustCompile(`^jax_cuda1[0-9]_pjrt-([0-9A-Za-z.]+)\.dist-info$`)

// recorded describes a plugin that a Python installer put into a site-packages folder, by the SHA-256 that its
// package lists for it. The file's size must be the listed one; its content is not read.
func recorded(path string) (Plugin, bool) {
	site := filepath.Dir(filepath.Dir(filepath.Dir(path)))
	name, err := filepath.Rel(site, path)
	if err != nil {
		return Plugin{}, false
	}
	st, err := os.Stat(path)
	if err != nil {
		return Plugin{}, false
	}
	folders, err := filepath.Glob(filepath.Join(escape(site), "jax_cuda1*_pjrt-*.dist-info"))
	if err != nil || len(folders) != 1 {
		return Plugin{}, false // of two versions, one is a leftover
	}
	version := recordFolder.FindStringSubmatch(filepath.Base(folders[0]))
	f, err := os.Open(filepath.Join(folders[0], "RECORD"))
	if err != nil || version == nil {
		return Plugin{}, false
	}
	defer f.Close()
	rows := csv.NewReader(f)
	rows.FieldsPerRecord = 3 // name, hash, size
	for {
		row, err := rows.Read()
		if err != nil {
			return Plugin{}, false
		}
		if row[0] != filepath.ToSlash(name) {
			continue
		}
		size, err := strconv.ParseInt(row[2], 10, 64)
		const kind = "sha256="
		if err != nil || size != st.Size() || len(row[1]) < len(kind) || row[1][:len(kind)] != kind {
			return Plugin{}, false
		}
		sum, err := base64.RawURLEncoding.DecodeString(row[1][len(kind):])
		if err != nil || len(sum) != 32 {
			return Plugin{}, false
		}
		return Plugin{Platform: CUDA, Version: version[1], Size: size, SHA256: hex.EncodeToString(sum), Path: path}, true
	}
}
