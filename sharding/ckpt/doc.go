// Package ckpt reads and writes checkpoints: safetensors files, sharded or single, and the table of
// names that Hugging Face gives to the weights of Mixtral.
//
//	folder → index → files (mapped) → names matched to the catalogue → boxes copied into pieces
//
// A checkpoint is read whole or not at all: every tensor is the home of a weight or is ignored for a
// stated reason, and every weight of the catalogue has a home. No element is transposed; a tensor is a
// box of a catalogue weight, so reading is copying with at most a change of floating-point type.
package ckpt
