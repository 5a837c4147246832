package serve

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// TestTheLastEventIsNotLost ends the context of a reader that is late: it need not get all events, but those that it gets
// are in order, and the last is among them.
func TestTheLastEventIsNotLost(t *testing.T) {
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		q := newEvents(ctx)
		const n = 100
		for i := range int32(n) {
			q.send(infer.Event{Token: i})
		}
		go cancel()
		q.send(infer.Event{Token: n, Finish: infer.FinishCancelled})
		q.close()
		last := int32(-1)
		for e := range q.out {
			require.Greater(t, e.Token, last)
			last = e.Token
		}
		require.EqualValues(t, n, last)
		cancel()
	}
}
