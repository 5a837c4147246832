package clients

import (
	"errors"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
)

func TestOpenAIClient(t *testing.T) {
	w, url := serve(t)
	w.says(t, "Grüße, 世界 🙂!")
	c := openai.NewClient(option.WithBaseURL(url+"/v1/"), option.WithAPIKey("secret"), option.WithMaxRetries(0))
	ctx := t.Context()

	models, err := c.Models.List(ctx)
	require.NoError(t, err)
	require.Equal(t, "mixtral", models.Data[0].ID)
	one, err := c.Models.Get(ctx, "mixtral")
	require.NoError(t, err)
	require.Equal(t, "mix", one.OwnedBy)

	done, err := c.Completions.New(ctx, openai.CompletionNewParams{Model: "mixtral", MaxTokens: openai.Int(50), Logprobs: openai.Int(2),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"a", "b"}}})
	require.NoError(t, err)
	require.Len(t, done.Choices, 2)
	require.Equal(t, " Grüße, 世界 🙂!", done.Choices[1].Text)
	require.Equal(t, done.Choices[0].Logprobs.TokenLogprobs[0], done.Choices[0].Logprobs.TopLogprobs[0][done.Choices[0].Logprobs.Tokens[0]])

	ask := openai.ChatCompletionNewParams{Model: "mixtral", Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("s"), openai.UserMessage("q")},
		Logprobs: openai.Bool(true), TopLogprobs: openai.Int(3)}
	chat, err := c.Chat.Completions.New(ctx, ask)
	require.NoError(t, err)
	require.Equal(t, "Grüße, 世界 🙂!", chat.Choices[0].Message.Content)
	require.Equal(t, "stop", chat.Choices[0].FinishReason)
	require.Len(t, chat.Choices[0].Logprobs.Content[0].TopLogprobs, 3)
	require.Equal(t, chat.Usage.PromptTokens+chat.Usage.CompletionTokens, chat.Usage.TotalTokens)

	ask.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream, all := c.Chat.Completions.NewStreaming(ctx, ask), openai.ChatCompletionAccumulator{}
	for stream.Next() {
		require.True(t, all.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, chat.Choices[0].Message.Content, all.Choices[0].Message.Content)
	require.Equal(t, chat.Usage.TotalTokens, all.Usage.TotalTokens)

	tool := openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "weather", Parameters: openai.FunctionParameters{"type": "object"}})
	w.says(t, "[TOOL_CALLS]", `[{"name":"weather","arguments":{"city":"Ulm"}}]`)
	ask = openai.ChatCompletionNewParams{Model: "mixtral", Messages: ask.Messages, Tools: []openai.ChatCompletionToolUnionParam{tool}}
	chat, err = c.Chat.Completions.New(ctx, ask)
	require.NoError(t, err)
	require.Equal(t, "weather", chat.Choices[0].Message.ToolCalls[0].Function.Name)
	ask.Messages = append(ask.Messages, chat.Choices[0].Message.ToParam(), openai.ToolMessage(`{"rain":true}`, chat.Choices[0].Message.ToolCalls[0].ID))
	stream, all = c.Chat.Completions.NewStreaming(ctx, ask), openai.ChatCompletionAccumulator{}
	for stream.Next() {
		require.True(t, all.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, `{"city":"Ulm"}`, all.Choices[0].Message.ToolCalls[0].Function.Arguments)

	_, err = c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "gpt-4", Messages: ask.Messages})
	refused, ok := errors.AsType[*openai.Error](err)
	require.True(t, ok, err)
	require.Equal(t, 404, refused.StatusCode)
	require.Equal(t, "model_not_found", refused.Code)
	require.Equal(t, "model", refused.Param)

	w.fail = true
	stream = c.Chat.Completions.NewStreaming(ctx, ask)
	for stream.Next() {
		continue
	}
	require.Error(t, stream.Err(), "an error within a stream reaches the client")
}
