// Package ckpt reads, writes and converts checkpoints in three formats: Hugging Face's safetensors in both of
// its layouts, ours, which holds boxes of weights as the devices of a mesh do, and Megatron's .pt files.
//
//	folder → index → files (mapped) → names matched to the catalogue → boxes copied into pieces
//	                                                                 → plan of box copies → files of another format
//
// A checkpoint is read whole or not at all: every tensor is the home of a weight or is ignored for a
// stated reason, and every weight of the catalogue has a home. No element is transposed; a tensor is a
// box of a catalogue weight, or several one after another, so reading and converting are copying with at most
// a change of floating-point type.
package ckpt
