// Package hub downloads a snapshot of a model repository from the Hugging Face hub: into the cache that
// Python's huggingface_hub reads and writes, or into a plain folder.
//
//	listing of a revision → names checked and chosen → files in parallel → sums checked → put in place
//
// A file is written under a name ending in .incomplete, goes on from there after an interruption, and gets
// its name only once its length and checksum are the hub's: SHA-256 for large files, git's blob SHA-1 for
// small ones. Several processes may download the same snapshot; a lock a file lets one work and the others
// use its result.
//
// The cache is laid out as huggingface_hub lays it out, so a snapshot downloaded by either is found by the
// other, offline too:
//
//	models--OWNER--NAME/blobs/ETAG                  contents, named by checksum
//	models--OWNER--NAME/snapshots/COMMIT/FILE       links to ../../blobs/ETAG
//	models--OWNER--NAME/refs/REVISION               the commit of a branch or tag
//	.locks/models--OWNER--NAME/ETAG.lock
//
// From go-huggingface's hub package come the listing's file records, the names of headers and of cache
// folders, and the default place of the cache. Its downloader is not used: it starts every file anew, checks
// no length and no sum, refuses a redirect to another host, which is how the hub gives out large files, waits
// for no 429, prints to stdout, and knows HF_ENDPOINT but not HF_HOME, HF_HUB_CACHE, HF_TOKEN or
// HF_HUB_OFFLINE. Its record of a whole repository is not used either: it is strict about fields that a
// download does not read.
package hub
