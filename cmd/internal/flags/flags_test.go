package flags

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
	"mix/lower"
)

// TestDevice leaves the environment alone: the nth GPU is one of those that CUDA_VISIBLE_DEVICES shows.
func TestDevice(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "2,5")
	for _, tt := range []struct {
		device Device
		want   lower.Options
		err    string
	}{
		{Device{Device: "cpu", Mesh: "data=1 expert=1", Cache: "c"}, lower.Options{Platform: "cpu", CacheDir: "c"}, ""},
		{Device{Device: "cuda"}, lower.Options{Platform: "cuda"}, ""},
		{Device{Device: "cuda:3"}, lower.Options{Platform: "cuda", Ordinal: 3}, ""},
		{Device{Device: "cpu", Mesh: "pipe=2 expert"}, lower.Options{}, `--mesh: mesh: "expert", want axis=size`},
		{Device{Device: "cpu", Mesh: "row=2"}, lower.Options{}, `--mesh: mesh: axis "row", want pipe, data, expert, tensor`},
		{Device{Device: "cuda:-1"}, lower.Options{}, `device "cuda:-1", want cuda:n with n a number from 0`},
		{Device{Device: "cuda:"}, lower.Options{}, `device "cuda:", want cuda:n`},
		{Device{Device: "cpu:0"}, lower.Options{}, `device "cpu:0", want cpu, cuda or cuda:n`},
		{Device{Device: "tpu"}, lower.Options{}, `device "tpu", want cpu, cuda or cuda:n`},
	} {
		t.Run(tt.device.Device+" "+tt.device.Mesh, func(t *testing.T) {
			o, err := tt.device.options()
			require.Equal(t, "2,5", os.Getenv("CUDA_VISIBLE_DEVICES"))
			if tt.err != "" {
				require.ErrorIs(t, err, cli.ErrUsage)
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, o)
		})
	}
}
