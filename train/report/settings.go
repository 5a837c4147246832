package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// setting is a row of the table of settings.
type setting struct{ Name, Value string }

// settings makes rows of an object's members, in its order. Members of inner objects have names with
// dots; arrays are one value. Nothing at all has no rows.
func settings(config json.RawMessage) ([]setting, error) {
	if len(bytes.TrimSpace(config)) == 0 {
		return nil, nil
	}
	if !json.Valid(config) {
		return nil, errors.New("not JSON")
	}
	if first := bytes.TrimSpace(config)[0]; first != '{' {
		return nil, fmt.Errorf("JSON that begins with %q, want an object", first)
	}
	return members(nil, "", config)
}

func members(rows []setting, prefix string, object json.RawMessage) ([]setting, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil { // the brace
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		full := prefix + name.(string)
		if value[0] == '{' && len(value) > 2 {
			if rows, err = members(rows, full+".", value); err != nil {
				return nil, err
			}
			continue
		}
		rows = append(rows, setting{full, plain(value)})
	}
	if _, err := d.Token(); err != nil && err != io.EOF {
		return nil, err
	}
	return rows, nil
}

// plain is a value as a person writes it: strings without quotes, arrays on one line.
func plain(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil && value[0] == '"' {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return string(value)
	}
	return b.String()
}
