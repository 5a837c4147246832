package main

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	reComment = regexp.MustCompile(`//[^\n]*|(?s)/\*.*?\*/`)
	reDefine  = regexp.MustCompile(`(?m)^[ \t]*#.*(\\\n.*)*$`)
	reMinor   = regexp.MustCompile(`#define PJRT_API_MINOR (\d+)`)
	reTraits  = regexp.MustCompile(`PJRT_DEFINE_STRUCT_TRAITS\(\s*(\w+),\s*(\w+)\)`)
	reEnum    = regexp.MustCompile(`(?s)typedef enum \{(.*?)\}\s*(\w+);`)
	reStruct  = regexp.MustCompile(`(?s)(?:typedef )?struct (PJRT_\w+) \{(.*?)\n\}`)
	reUnion   = regexp.MustCompile(`(?s)union \{(.*?)\};`)
	reFn      = regexp.MustCompile(`_PJRT_API_STRUCT_FIELD\((\w+)\)`)
	reProto   = regexp.MustCompile(`typedef (PJRT_Error\*|void) (PJRT_\w+)\(\s*(\w+)\* args\);`)
	reOpaque  = regexp.MustCompile(`typedef struct (PJRT_\w+)\s+(PJRT_\w+);`)
	reCb      = regexp.MustCompile(`typedef [\w\* ]+ \(\*(PJRT_\w+)\)\(`)
	reFnField = regexp.MustCompile(`(?s)\(\*(\w+)\)\s*\(.*?\)$`)
)

// header is what the generator needs of pjrt_c_api.h.
type header struct {
	minor   string
	opaque  []string // names in C
	enums   []enum
	structs []record
	fns     []string // in the order of PJRT_Api
	protos  []proto

	isEnum, isCallback, isOpaque, isStruct map[string]bool
}

type enum struct {
	c      string
	names  []string
	values []int
}

type record struct {
	c      string
	last   string // the field that PJRT_STRUCT_SIZE counts up to; "" if the struct has no size
	fields []field
}

type field struct{ c, name, typ string }

type proto struct {
	void    bool
	c, args string
}

// camel turns a name of C into one of Go.
func camel(s string, up bool) string {
	var b strings.Builder
	for i, p := range strings.Split(strings.TrimPrefix(s, "PJRT_"), "_") {
		switch {
		case p == "":
		case i == 0 && !up:
			b.WriteString(strings.ToLower(p[:1]) + p[1:])
		default:
			b.WriteString(strings.ToUpper(p[:1]) + p[1:])
		}
	}
	switch r := b.String(); r {
	case "type", "func", "range", "map", "default":
		return r + "_"
	default:
		return r
	}
}

func parse(raw string) (*header, error) {
	src := reComment.ReplaceAllString(raw, "")
	h := &header{isEnum: map[string]bool{}, isCallback: map[string]bool{}, isOpaque: map[string]bool{}, isStruct: map[string]bool{}}
	minor := reMinor.FindStringSubmatch(src)
	if minor == nil {
		return nil, fmt.Errorf("no PJRT_API_MINOR: not pjrt_c_api.h")
	}
	h.minor = minor[1]
	src = reDefine.ReplaceAllString(src, "")
	for _, m := range reCb.FindAllStringSubmatch(src, -1) {
		h.isCallback[m[1]] = true
	}
	structs := reStruct.FindAllStringSubmatch(src, -1)
	for _, m := range structs {
		h.isStruct[m[1]] = true
	}
	for _, m := range reOpaque.FindAllStringSubmatch(src, -1) {
		if !h.isStruct[m[2]] && !h.isOpaque[m[2]] {
			h.isOpaque[m[2]] = true
			h.opaque = append(h.opaque, m[2])
		}
	}
	for _, m := range reEnum.FindAllStringSubmatch(src, -1) {
		h.isEnum[m[2]] = true
		h.enums = append(h.enums, parseEnum(m[2], m[1]))
	}
	last := map[string]string{}
	for _, m := range reTraits.FindAllStringSubmatch(src, -1) {
		last[m[1]] = m[2]
	}
	for _, m := range structs {
		if m[1] == "PJRT_Api" {
			continue
		}
		fs, err := h.parseFields(m[2])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m[1], err)
		}
		h.structs = append(h.structs, record{m[1], last[m[1]], fs})
	}
	inTable := map[string]bool{}
	for _, m := range reFn.FindAllStringSubmatch(src, -1) {
		if m[1] != "fn_type" {
			h.fns = append(h.fns, m[1])
			inTable[m[1]] = true
		}
	}
	for _, m := range reProto.FindAllStringSubmatch(src, -1) {
		if inTable[m[2]] {
			h.protos = append(h.protos, proto{m[1] == "void", m[2], m[3]})
		}
	}
	return h, nil
}

func parseEnum(name, body string) enum {
	e, next := enum{c: name}, 0
	for _, x := range strings.Split(body, ",") {
		x = strings.TrimSpace(x)
		if x == "" {
			continue
		}
		n, v, ok := strings.Cut(x, "=")
		if ok {
			fmt.Sscan(strings.TrimSpace(v), &next)
		}
		e.names, e.values = append(e.names, strings.TrimSpace(n)), append(e.values, next)
		next++
	}
	return e
}

func (h *header) parseFields(body string) (fs []field, err error) {
	body = reUnion.ReplaceAllStringFunc(body, func(u string) string {
		if strings.Contains(u, "tiled") {
			return "PJRT_Buffer_MemoryLayout_Tiled tiled;" // the larger member
		}
		return "uint64_t int64_value;" // all members have 8 bytes or fewer
	})
	for _, d := range strings.Split(body, ";") {
		d = strings.Join(strings.Fields(d), " ")
		if d == "" {
			continue
		}
		if m := reFnField.FindStringSubmatch(d); m != nil {
			fs = append(fs, field{m[1], camel(m[1], false), "uintptr"})
			continue
		}
		i := strings.LastIndexAny(d, " *") + 1
		t, err := h.goType(d[:i])
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(d[i:], "_arg") {
			t = "uintptr" // holds a small integer, which is no valid pointer
		}
		fs = append(fs, field{d[i:], camel(d[i:], false), t})
	}
	return fs, nil
}

// goType maps a type of C. Objects of the plugin are integers, invisible to the collector.
func (h *header) goType(t string) (string, error) {
	t = strings.TrimSpace(strings.ReplaceAll(t, "struct ", ""))
	base := strings.TrimSpace(strings.TrimPrefix(t, "const "))
	if strings.HasSuffix(base, "*") {
		if o := strings.TrimSuffix(base, "*"); h.isOpaque[o] {
			return camel(o, false) + "Handle", nil
		}
		return "unsafe.Pointer", nil
	}
	switch {
	case h.isEnum[base]:
		return camel(base, true), nil
	case h.isCallback[base]:
		return "uintptr", nil
	case h.isStruct[base]:
		return camel(base, false), nil
	}
	g, ok := map[string]string{
		"size_t": "int", "intptr_t": "int", "int": "int32", "int32_t": "int32", "uint32_t": "uint32",
		"int64_t": "int64", "PJRT_Global_Device_Id": "int64", "uintptr_t": "uintptr", "uint64_t": "uint64",
		"float": "float32", "bool": "bool",
	}[base]
	if !ok {
		return "", fmt.Errorf("unknown type %q", t)
	}
	return g, nil
}
