package lower

import (
	"os"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/support/backendtest"
	"github.com/stretchr/testify/require"
)

// TestConformance runs the public conformance suite of GoMLX's backends, whole. The suite skips what a
// backend says it cannot do; excluded lists that with the reasons.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	b := testBackend(t)
	require.False(t, b.HasSharedBuffers(), "Exec/BufferReuse is excluded for want of shared buffers")
	require.Equal(t, compute.DynamicShapesNone, b.Capabilities().DynamicShapes, "dynamic shapes are excluded")
	backendtest.RunAll(t, b, nil)
}

const (
	static   = "XLA's programs have static shapes; GoMLX traces again for each shape"
	fused    = "XLA fuses the decomposed form by itself, and that form has GoMLX's gradient"
	noMethod = "compute has the name but no method to call it by"
	internal = "a node of the pure-Go backend"
)

// excluded are the operations that we do not have. Beside these the suite skips Exec/BufferReuse:
// programs run while the caller goes on, so there are no buffers that the caller may write to.
var excluded = map[compute.OpType]string{
	compute.OpTypeDynamicReshape:                    static,
	compute.OpTypeDynamicBroadcastInDim:             static,
	compute.OpTypeDynamicIota:                       static,
	compute.OpTypeDynamicPad:                        static,
	compute.OpTypeDynamicShape:                      static,
	compute.OpTypeDynamicDimensionSize:              static,
	compute.OpTypeFusedSoftmax:                      fused,
	compute.OpTypeFusedGelu:                         fused,
	compute.OpTypeFusedLayerNorm:                    fused,
	compute.OpTypeFusedDense:                        fused,
	compute.OpTypeFusedQuantizedDense:               fused,
	compute.OpTypeQuantizedEmbeddingLookup:          fused,
	compute.OpTypeFusedAttentionQKVProjection:       fused,
	compute.OpTypeFusedScaledDotProductAttention:    fused,
	compute.OpTypeFusedScaledDotProductAttentionVJP: fused,
	compute.OpTypeSelectAndScatterSum:               noMethod,
	compute.OpTypeCollectiveBroadcast:               noMethod,
	compute.OpTypeAllGather:                         noMethod,
	compute.OpTypeCapturedValue:                     internal,
	compute.OpTypeBlockForDotGeneral:                internal,
}

// TestEveryOperationIsThereOrExcluded holds the list above to the capabilities.
func TestEveryOperationIsThereOrExcluded(t *testing.T) {
	for op := compute.OpTypeInvalid + 1; op < compute.OpTypeLast; op++ {
		reason, out := excluded[op]
		require.NotEqual(t, capabilities.Operations[op], out, "%s: excluded for %q, capability %v", op, reason, capabilities.Operations[op])
	}
}

// testBackend is a CPU backend of two devices without a cache that ends with the test.
func testBackend(t testing.TB) *Backend {
	t.Helper()
	b, err := New(t.Context(), Options{Devices: 2, NoCache: true, Verify: true, Progress: os.Stderr})
	if err != nil {
		t.Fatalf("no CPU plugin, and none can be installed: %v", err)
	}
	t.Cleanup(b.Finalize)
	return b
}
