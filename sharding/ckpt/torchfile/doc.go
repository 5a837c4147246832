// Package torchfile reads and writes the .pt files of PyTorch without Python.
//
//	zip archive (or the older stream) → pickle, as data → tensors: where their elements lie in the file
//
// A pickle is a program, and this package does not run it. It follows the opcodes that build dictionaries,
// lists, tuples, numbers and text, and knows a short list of globals by name. Tensors become descriptions,
// objects such as argparse.Namespace become records of their fields, and anything else is refused with its
// name and its position.
package torchfile
