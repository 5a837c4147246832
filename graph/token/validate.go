package token

import (
	"errors"
	"fmt"
	"slices"
)

// follows lists the roles that may come after a role.
var follows = map[string][]string{
	System:    {System, User, Assistant},
	User:      {System, User, Assistant},
	Assistant: {User, Assistant, ToolRole},
	ToolRole:  {User, Assistant, ToolRole},
}

// validate checks the order of roles and each message alone.
func validate(messages []Message, template Template) error {
	if len(messages) == 0 {
		return errors.New("no messages, want at least one")
	}
	open := 0 // tool calls without a result
	for i, m := range messages {
		if err := m.follows(messages[:i]); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		switch m.Role {
		case ToolRole:
			open--
		case Assistant:
			if open != 0 {
				return fmt.Errorf("message %d: %s before it, want as many tool results as tool calls", i, surplus(open))
			}
			open = len(m.ToolCalls)
		}
		if err := m.validate(i == len(messages)-1, template); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	end := len(messages) - 1
	if m := messages[end]; m.Role == Assistant && !m.Prefix {
		return fmt.Errorf("message %d: the last is the assistant's, want user, tool, or a prefix of the answer", end)
	} else if m.Role == Assistant && end == 0 {
		return errors.New("message 0: the only message is the assistant's, want user or system")
	}
	if open != 0 {
		return fmt.Errorf("message %d: %s at the end, want as many tool results as tool calls", end, surplus(open))
	}
	return nil
}

// surplus words the difference between tool calls and results.
func surplus(calls int) string {
	if calls > 0 {
		return fmt.Sprintf("%d tool calls without a result", calls)
	}
	return fmt.Sprintf("%d tool results without a call", -calls)
}

// follows checks that the message's role exists and may come after those before it.
func (m Message) follows(before []Message) error {
	if _, ok := follows[m.Role]; !ok {
		return fmt.Errorf("role %q, want %s, %s, %s or %s", m.Role, System, User, Assistant, ToolRole)
	}
	if len(before) == 0 {
		if m.Role == ToolRole {
			return fmt.Errorf("role %q comes first, want %s, %s or %s", m.Role, System, User, Assistant)
		}
		return nil
	}
	last := before[len(before)-1].Role
	if !slices.Contains(follows[last], m.Role) {
		return fmt.Errorf("role %q after %q, want one of %q", m.Role, last, follows[last])
	}
	return nil
}

// validate checks one message for its role and template.
func (m Message) validate(last bool, template Template) error {
	if err := checkUTF8(m.Content); err != nil {
		return err
	}
	if m.Role != Assistant {
		if m.Prefix {
			return fmt.Errorf("role %q is marked as a prefix, want %s", m.Role, Assistant)
		}
		if len(m.ToolCalls) > 0 {
			return fmt.Errorf("role %q has tool calls, want %s", m.Role, Assistant)
		}
	}
	if template == V1 && (m.Role == ToolRole || len(m.ToolCalls) > 0) {
		return errors.New("uses tools, but v1 has none")
	}
	if m.Role == ToolRole {
		return checkCallID(m.ToolCallID)
	}
	if m.ToolCallID != "" {
		return fmt.Errorf("role %q answers tool call %q, want %s", m.Role, m.ToolCallID, ToolRole)
	}
	if m.Role != Assistant {
		return nil
	}
	if (m.Content == "") == (len(m.ToolCalls) == 0) {
		return fmt.Errorf("the assistant has content of %d bytes and %d tool calls, want one or the other", len(m.Content), len(m.ToolCalls))
	}
	if m.Prefix && !last {
		return errors.New("marked as a prefix, but not the last message")
	}
	for _, c := range m.ToolCalls {
		if err := checkCallID(c.ID); err != nil {
			return err
		}
		if err := checkName(c.Name); err != nil {
			return err
		}
		if err := checkUTF8(c.Arguments); err != nil {
			return fmt.Errorf("arguments of tool call %s: %w", c.ID, err)
		}
	}
	return nil
}

func checkCallID(id string) error {
	if len(id) != 9 || !only(id, "") {
		return fmt.Errorf("tool call id %q, want nine of a-z, A-Z, 0-9", id)
	}
	return nil
}

func checkName(name string) error {
	if len(name) < 1 || len(name) > 64 || !only(name, "_-") {
		return fmt.Errorf("function name %q, want 1 to 64 of a-z, A-Z, 0-9, _, -", name)
	}
	return nil
}

// only reports whether a text consists of ASCII letters, digits and the bytes of more.
func only(text, more string) bool {
	for i := range len(text) {
		c := text[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !slices.Contains([]byte(more), c) {
			return false
		}
	}
	return true
}
