package grammar

import (
	"regexp"
	"unicode/utf8"
)

// members makes the expression of an object: for each name, what all schemas say of it.
func (s *schemas) members(c *conjunct) (*expr, error) {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, v := range c.objects {
		if p := v.get("properties"); p != nil {
			for _, n := range p.names {
				add(n)
			}
		}
	}
	for _, n := range c.required {
		add(n)
	}
	if len(names) > maxPairs {
		return nil, c.objects[0].wrong("%d properties, want at most %d", len(names), maxPairs)
	}
	must := map[string]bool{}
	for _, n := range c.required {
		must[n] = true
	}
	list := make([]member, 0, len(names)+1)
	for _, n := range names {
		here, forbidden := c.property(n)
		if forbidden && !must[n] {
			continue
		}
		value := none
		if !forbidden {
			e, err := s.expr(here)
			if err != nil {
				return nil, err
			}
			value = e
		}
		list = append(list, member{pair: pair(text(quoted(n)), value), required: must[n]})
	}
	more, err := s.additional(c, names)
	if err != nil {
		return nil, err
	}
	if more != nil {
		others := stringOf(0, -1)
		if len(names) > 0 {
			others = otherNames(names)
		}
		list = append(list, member{pair: pair(others, more), many: true})
	}
	return objectOf(list), nil
}

// property returns the schemas of a name. It is forbidden if some schema has neither the name nor others.
func (c *conjunct) property(name string) (all []*doc, forbidden bool) {
	for _, v := range c.objects {
		if p := v.get("properties"); p != nil {
			if here := p.get(name); here != nil {
				all = append(all, here)
				continue
			}
		}
		if others := v.get("additionalProperties"); others != nil {
			all, forbidden = append(all, others), forbidden || isFalse(others)
		}
	}
	return all, forbidden
}

// additional makes the expression of the values of names that are not declared, nil if there are none.
func (s *schemas) additional(c *conjunct, names []string) (*expr, error) {
	var all []*doc
	for _, v := range c.objects {
		if others := v.get("additionalProperties"); others != nil {
			if isFalse(others) {
				return nil, nil
			}
			all = append(all, others)
		}
	}
	if len(all) == 0 && len(names) > 0 {
		return nil, nil
	}
	bytes := 0
	for _, n := range names {
		bytes += len(n)
	}
	if bytes > maxNames {
		return nil, all[0].wrong("beside names of %d bytes together, want at most %d", bytes, maxNames)
	}
	return s.expr(all)
}

// enum makes the expression of those values of enum and const that the other keywords allow.
func (s *schemas) enum(c *conjunct, set types) (*expr, error) {
	var scalars []string
	var subs []*expr
	for _, v := range c.values {
		if v.types()&set == 0 {
			continue
		}
		ok, err := c.allows(v)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		switch v.kind {
		case docString:
			scalars = append(scalars, quoted(v.text))
		case docArray, docObject:
			subs = append(subs, v.literal())
		default:
			scalars = append(scalars, v.text)
		}
	}
	if len(scalars) > 0 {
		subs = append(subs, words(scalars))
	}
	return alt(subs...), nil
}

// types returns the type of a value.
func (v *doc) types() types {
	switch v.kind {
	case docObject:
		return typeObject
	case docArray:
		return typeArray
	case docString:
		return typeString
	case docBool:
		return typeBool
	case docNull:
		return typeNull
	}
	if b, err := readBound(v.text, false); err == nil && b.value.IsInt() {
		return typeInteger
	}
	return typeFraction
}

// allows tells whether a value of enum keeps to the keywords beside it.
func (c *conjunct) allows(v *doc) (bool, error) {
	switch v.kind {
	case docString:
		n := utf8.RuneCountInString(v.text)
		if n < c.minLength || c.maxLength >= 0 && n > c.maxLength {
			return false, nil
		}
		if c.format != nil {
			return false, c.format.wrong("format beside enum or const is not supported")
		}
		if c.pattern != nil {
			re, err := regexp.Compile(c.pattern.text)
			if err != nil {
				return false, c.pattern.wrong("%s", err)
			}
			return re.MatchString(v.text), nil
		}
	case docNumber:
		b, err := readBound(v.text, false)
		if err != nil {
			return false, v.wrong("%s", err)
		}
		return holds(b.value, c.lo, c.hi), nil
	case docArray:
		if len(c.arrays) > 0 || c.minItems > 0 || c.maxItems >= 0 {
			return false, v.wrong("an array in enum or const beside keywords of arrays is not supported")
		}
	case docObject:
		if len(c.objects) > 0 || len(c.required) > 0 {
			return false, v.wrong("an object in enum or const beside keywords of objects is not supported")
		}
	}
	return true, nil
}

// literal matches a value as it is, with white space where it may be.
func (v *doc) literal() *expr {
	switch v.kind {
	case docString:
		return text(quoted(v.text))
	case docArray:
		items := make([]*expr, len(v.values))
		for i, x := range v.values {
			items[i] = x.literal()
		}
		return arrayOf(items, nil, len(items), len(items))
	case docObject:
		list := make([]member, len(v.values))
		for i, x := range v.values {
			list[i] = member{pair: pair(text(quoted(v.names[i])), x.literal()), required: true}
		}
		return objectOf(list)
	}
	return text(v.text)
}
