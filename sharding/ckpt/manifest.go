package ckpt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// ManifestFile is the name of a manifest in its folder.
const ManifestFile = "manifest.json"

// What a manifest of ours says about itself.
const (
	manifestFormat  = "mix"
	manifestVersion = 1
)

// ErrDamaged is wrapped by every refusal of a folder that is not as its manifest says.
var ErrDamaged = errors.New("damaged checkpoint")

// A Manifest lists the files of a folder and what identifies their content. It is written last, so a folder
// that has one was whole when it was written.
//
//	{
//	  "format": "mix",
//	  "version": 1,
//	  "files": [ {"name": …, "bytes": …, "crc32c": …}, … ],
//	  "state": …,
//	  "crc32c": "…"
//	}
//
// The checksum at its end is of the text before that line's comma. Other programs read it as any JSON.
type Manifest struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Files   []Sum           `json:"files"`
	State   json.RawMessage `json:"state"` // anything in JSON
}

// NewManifest is a manifest of this version, its files sorted by name. State nil is null.
func NewManifest(files []Sum, state json.RawMessage) Manifest {
	if state == nil {
		state = json.RawMessage("null")
	}
	files = append([]Sum{}, files...)
	slices.SortFunc(files, func(a, b Sum) int { return strings.Compare(a.Name, b.Name) })
	return Manifest{manifestFormat, manifestVersion, files, state}
}

// check refuses what cannot be followed.
func (m Manifest) check() error {
	switch {
	case m.Format != manifestFormat:
		return fmt.Errorf("format %s, want %q", quote(m.Format), manifestFormat)
	case m.Version != manifestVersion:
		return fmt.Errorf("version %d, want %d", m.Version, manifestVersion)
	case !json.Valid(m.State):
		return errors.New("state is not valid JSON")
	}
	seen := map[string]bool{ManifestFile: true}
	for _, f := range m.Files {
		switch {
		case !fs.ValidPath(f.Name) || f.Name == "." || !filepath.IsLocal(filepath.FromSlash(f.Name)) || strings.ContainsAny(f.Name, "\\:") || printable(f.Name) != f.Name:
			return fmt.Errorf("file %s, want a path inside the folder", quote(f.Name))
		case seen[f.Name]:
			return fmt.Errorf("file %s is there twice", quote(f.Name))
		case f.Bytes < 0:
			return fmt.Errorf("file %s: %d bytes, want at least 0", quote(f.Name), f.Bytes)
		}
		seen[f.Name] = true
	}
	return nil
}

const manifestEnd = ",\n  \"crc32c\": \"00000000\"\n}\n"

// Text is the text of the file.
func (m Manifest) Text() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("\n}"))
	return append(b, strings.Replace(manifestEnd, "00000000", CRCOf(b).String(), 1)...), nil
}

// Write puts the manifest into its folder, in place of an older one.
func (m Manifest) Write(dir string) error {
	b, err := m.Text()
	if err != nil {
		return err
	}
	_, err = replaceText(filepath.Join(dir, ManifestFile), b)
	return err
}

// ParseManifest reads what Text gives. Every change of a byte is noticed.
func ParseManifest(text []byte) (m Manifest, err error) {
	at := len(text) - len(manifestEnd)
	if at < 0 {
		return m, fmt.Errorf("%d bytes, want a manifest with its checksum", len(text))
	}
	var sum CRC
	digits := strings.Index(manifestEnd, "0")
	err = sum.UnmarshalText(text[at+digits : at+digits+8])
	switch {
	case err != nil || string(text[at:]) != strings.Replace(manifestEnd, "00000000", sum.String(), 1):
		return m, errors.New("the text does not end with its CRC-32C")
	case CRCOf(text[:at]) != sum:
		return m, fmt.Errorf("CRC-32C of the text is %s, want %s", CRCOf(text[:at]), sum)
	}
	return parseManifest(append(bytes.Clone(text[:at]), "\n}"...))
}

// parseManifest reads the text without its checksum.
func parseManifest(text []byte) (m Manifest, err error) {
	r, err := newReader(text)
	if err != nil {
		return m, err
	}
	err = r.object(func(key string) error {
		field := map[string]any{"format": &m.Format, "version": &m.Version, "files": &m.Files, "state": &m.State}[key]
		if field == nil {
			return fmt.Errorf("unknown field %s, want format, version, files and state", quote(key))
		}
		var value json.RawMessage
		if err := r.dec.Decode(&value); err != nil {
			return wrap(err, key)
		}
		dec := json.NewDecoder(bytes.NewReader(value))
		dec.DisallowUnknownFields()
		return wrap(dec.Decode(field), key)
	})
	if err != nil {
		return m, err
	}
	return m, m.check()
}

// ReadManifest reads the manifest of a folder without looking at the files. Errors are of the file system
// or ErrDamaged.
func ReadManifest(dir string) (m Manifest, err error) {
	name := filepath.Join(dir, ManifestFile)
	r, err := openPath(name)
	if err != nil {
		return m, err
	}
	defer r.close()
	defer fault(name, &err)()
	if r.size() > maxHeader {
		return m, fmt.Errorf("%s: %w: %d bytes, want at most %d", name, ErrDamaged, r.size(), maxHeader)
	}
	b, err := r.view(0, r.size())
	if err != nil {
		return m, err
	}
	if m, err = ParseManifest(b); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	return m, nil
}
