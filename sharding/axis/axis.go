// Package axis holds the two vocabularies of sharding, the names the model gives to tensor axes and
// the names the machine gives to mesh axes, and the two descriptions of a weight that cross every
// border: the catalogue entry (Param) and the part of it that a compiled program wants (Piece).
package axis

// Logical names one axis of a tensor by its meaning.
type Logical string

// Logical axes of Mixtral. The letter is the one used in shape comments.
const (
	Layers  Logical = "layers"  // L decoder layers
	Micro   Logical = "micro"   // M microbatches
	Batch   Logical = "batch"   // B sequences
	Seq     Logical = "seq"     // S positions
	Embed   Logical = "embed"   // D model width
	Heads   Logical = "heads"   // H query heads
	KVHeads Logical = "kv"      // G key/value heads
	HeadDim Logical = "headdim" // A width of one head
	Experts Logical = "experts" // E experts
	FFN     Logical = "ffn"     // F hidden width of one expert
	Pool    Logical = "pool"    // N positions of a pool of keys and values
	Vocab   Logical = "vocab"   // V token ids
	Rank    Logical = "rank"    // r inner width of an adapter
)

// Mesh names one axis of the device mesh by the parallelism it carries.
type Mesh string

// Mesh axes.
const (
	Data   Mesh = "data"   // DP
	Expert Mesh = "expert" // EP
	Tensor Mesh = "tensor" // TP
	Pipe   Mesh = "pipe"   // PP
)

// Meshes lists the mesh axes, outermost (slowest links) first.
var Meshes = []Mesh{Pipe, Data, Expert, Tensor}
