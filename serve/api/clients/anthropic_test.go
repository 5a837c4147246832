package clients

import (
	"errors"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/stretchr/testify/require"
)

func TestAnthropicClient(t *testing.T) {
	w, url := serve(t)
	w.says(t, "Grüße, 世界 🙂!")
	c := anthropic.NewClient(option.WithBaseURL(url), option.WithAPIKey("secret"), option.WithMaxRetries(0))
	ctx := t.Context()
	ask := anthropic.MessageNewParams{Model: "mixtral", MaxTokens: 50, System: []anthropic.TextBlockParam{{Text: "s"}},
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("q"))}}
	m, err := c.Messages.New(ctx, ask)
	require.NoError(t, err)
	require.Equal(t, "Grüße, 世界 🙂!", m.Content[0].Text)
	require.Equal(t, anthropic.StopReasonEndTurn, m.StopReason)
	count, err := c.Messages.CountTokens(ctx, anthropic.MessageCountTokensParams{Model: "mixtral", Messages: ask.Messages,
		System: anthropic.MessageCountTokensParamsSystemUnion{OfTextBlockArray: ask.System}})
	require.NoError(t, err)
	require.Equal(t, count.InputTokens, m.Usage.InputTokens+m.Usage.CacheReadInputTokens)
	models := c.Models.ListAutoPaging(ctx, anthropic.ModelListParams{})
	require.True(t, models.Next())
	require.Equal(t, "mixtral", models.Current().ID)

	stream, all := c.Messages.NewStreaming(ctx, ask), anthropic.Message{}
	for stream.Next() {
		require.NoError(t, all.Accumulate(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, m.Content[0].Text, all.Content[0].Text)
	require.Equal(t, m.Usage.OutputTokens, all.Usage.OutputTokens)

	w.says(t, `[{"name":"weather","arguments":{"city":"Ulm"}}]`)
	ask.Tools = []anthropic.ToolUnionParam{{OfTool: &anthropic.ToolParam{Name: "weather", InputSchema: anthropic.ToolInputSchemaParam{}}}}
	ask.ToolChoice = anthropic.ToolChoiceParamOfTool("weather")
	m, err = c.Messages.New(ctx, ask)
	require.NoError(t, err)
	require.Equal(t, anthropic.StopReasonToolUse, m.StopReason)
	require.JSONEq(t, `{"city":"Ulm"}`, string(m.Content[0].Input))
	ask.Messages = append(ask.Messages, m.ToParam(), anthropic.NewUserMessage(anthropic.NewToolResultBlock(m.Content[0].ID, "rain", false)))
	stream, all = c.Messages.NewStreaming(ctx, ask), anthropic.Message{}
	for stream.Next() {
		require.NoError(t, all.Accumulate(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.JSONEq(t, `{"city":"Ulm"}`, string(all.Content[0].Input))

	ask.Model = "claude"
	_, err = c.Messages.New(ctx, ask)
	refused, ok := errors.AsType[*anthropic.Error](err)
	require.True(t, ok, err)
	require.Equal(t, 404, refused.StatusCode)
	require.Contains(t, refused.RawJSON(), "not_found_error")
}
