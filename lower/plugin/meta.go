package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Plugin describes an installed plugin. It is written beside the library when Ensure installs it.
type Plugin struct {
	Platform string `json:"platform"`
	Version  string `json:"version"`
	Size     int64  `json:"size"`     // bytes of the library
	SHA256   string `json:"sha256"`   // of the library, lower-case hexadecimal
	Wheel    string `json:"wheel"`    // file name of the wheel it came from
	Modified int64  `json:"modified"` // time of the library's last change, nanoseconds since 1970
	Path     string `json:"-"`        // the library
}

// Describe returns what is known of the plugin at path. Platform, Version and SHA256 are empty if it was
// neither installed by Ensure nor by a Python installer into site-packages, or changed since; Wheel and Modified
// are known of Ensure's alone.
func Describe(path string) (Plugin, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Plugin{}, fmt.Errorf("plugin: %w", err)
	}
	if p, err := readMeta(path); err == nil && p.Size == st.Size() {
		return p, nil
	}
	if p, ok := recorded(path); ok {
		return p, nil
	}
	return Plugin{Path: path, Size: st.Size()}, nil
}

// Fingerprint identifies the plugin at path for keys of compiled programs. It is cheap: of a
// plugin that Ensure or a Python installer installed it is made of platform, version and the SHA-256 noted at
// install, the same on every machine; of any other of its real path, size and modification time.
func Fingerprint(path string) (string, error) {
	p, err := Describe(path)
	if err != nil {
		return "", err
	}
	if p.SHA256 != "" {
		return fmt.Sprintf("%s-%s-sha256:%s", p.Platform, p.Version, p.SHA256), nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	return fmt.Sprintf("file:%s:%d:%d", real, st.Size(), st.ModTime().UnixNano()), nil
}

// metaPath is where the description of the library at path lies.
func metaPath(path string) string { return path + ".json" }

func readMeta(path string) (Plugin, error) {
	b, err := os.ReadFile(metaPath(path))
	if err != nil {
		return Plugin{}, err
	}
	var p Plugin
	if err := json.Unmarshal(b, &p); err != nil {
		return Plugin{}, fmt.Errorf("%s: %w", metaPath(path), err)
	}
	p.Path = path
	return p, nil
}

// intact says whether the library at path is the complete one of w. Its content was checked when it was
// installed and is checked again when the file has changed since: a damaged library crashes the process.
func intact(path string, w wheel) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("absent")
	}
	p, err := readMeta(path)
	if err != nil {
		return fmt.Errorf("its install did not finish")
	}
	if p.Wheel != w.file {
		return fmt.Errorf("it comes from %q, want %q", p.Wheel, w.file)
	}
	if p.Size != st.Size() {
		return fmt.Errorf("it has %d bytes, want %d", st.Size(), p.Size)
	}
	if p.Modified == st.ModTime().UnixNano() {
		return nil
	}
	if _, sum, err := hashFile(path); err != nil || sum != p.SHA256 {
		return fmt.Errorf("its content has changed")
	}
	return nil
}

// hashFile returns size and SHA-256 of a file.
func hashFile(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(h.Sum(nil)), nil
}
