package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mix/cmd/chat/openai"
)

// help says what can be typed besides messages.
const help = `/reset          forget the conversation, keep the system prompt
/system TEXT    set the system prompt; without text remove it
/help           this text
/quit           leave; so does Ctrl-D
//TEXT          say /TEXT
Ctrl-C stops an answer, and leaves when pressed twice.
`

// chat talks in turns. Answers go to the output, everything else to the errors' stream.
func (s *session) chat(ctx context.Context) error {
	t := turns{system: s.System}
	pressed := false
	for {
		line, err := s.line(ctx, s.err, "> ")
		if errors.Is(err, errInterrupt) && !pressed {
			pressed = true
			fmt.Fprintln(s.err, "Ctrl-C again or Ctrl-D to leave")
			continue
		}
		if err != nil {
			return err
		}
		pressed = false
		message, reply, leave := t.command(line)
		fmt.Fprint(s.err, reply)
		if leave {
			return nil
		}
		if message == "" {
			continue
		}
		if err := s.turn(ctx, &t, message); err != nil {
			return err
		}
	}
}

// turn asks for one answer. What was shown of an answer that was stopped belongs to the conversation; where nothing
// was shown, neither does the message. An error is one that ends the session.
func (s *session) turn(ctx context.Context, t *turns, message string) error {
	var limit *int
	if s.MaxTokens > 0 {
		limit = &s.MaxTokens
	}
	var answer openai.Answer
	stopped, err := s.during(ctx, func(ctx context.Context) error {
		a, err := s.ask(ctx, openai.Ask{Messages: t.with(message), MaxTokens: limit})
		if err != nil {
			return err
		}
		answer, err = s.client.Do(ctx, a, s.print)
		return err
	})
	if answer.Text != "" {
		if err := s.print("\n"); err != nil {
			return err
		}
	}
	if err != nil {
		if ended(ctx, err) {
			return err
		}
		fmt.Fprintln(s.err, told(err))
		return nil
	}
	if answer.Text != "" {
		t.add(message, answer.Text)
	}
	switch {
	case stopped:
		fmt.Fprintln(s.err, "(stopped)")
	case answer.Finish == "length":
		fmt.Fprintln(s.err, "(cut: the limit of tokens was reached)")
	case answer.Text == "":
		fmt.Fprintln(s.err, "(no text)")
	}
	return nil
}

// turns is a conversation.
type turns struct {
	system string
	said   []openai.Message
}

// with is the conversation with one more message of the user.
func (t *turns) with(message string) []openai.Message {
	var all []openai.Message
	if t.system != "" {
		all = append(all, openai.Message{Role: "system", Content: t.system})
	}
	return append(append(all, t.said...), openai.Message{Role: "user", Content: message})
}

func (t *turns) add(message, answer string) {
	t.said = append(t.said, openai.Message{Role: "user", Content: message}, openai.Message{Role: "assistant", Content: answer})
}

// command reads a line: a message to send, or a command and what it replies.
func (t *turns) command(line string) (message, reply string, leave bool) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "/") {
		return line, "", false
	}
	if strings.HasPrefix(line, "//") {
		return line[1:], "", false
	}
	name, rest, _ := strings.Cut(line, " ")
	switch name {
	case "/reset":
		t.said = nil
		return "", "(the conversation begins anew)\n", false
	case "/system":
		if t.system = strings.TrimSpace(rest); t.system == "" {
			return "", "(no system prompt)\n", false
		}
		return "", "(system prompt set)\n", false
	case "/help":
		return "", help, false
	case "/quit":
		return "", "", true
	}
	return "", fmt.Sprintf("%s is no command: /help lists them\n", name), false
}
