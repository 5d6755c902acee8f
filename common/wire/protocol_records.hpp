#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Records: small pieces of text that clients without a disk of their own keep in the ledger, such
// as the state of a batch that several gateways work on. The coordinator does not read them. Each
// change is durable before it is answered, raises the version, and is refused (kConflict) unless it
// names the version that it changes, so of two that change one record at a time one learns of it.
//
// Who works on a record holds a lease on it. A lease that another takes over raises the version,
// so what its former holder still writes is refused.
namespace tessera::protocol {

inline constexpr std::size_t kRecordBytesMax = 64U << 10;
inline constexpr std::uint32_t kRecordsPerReplyMax = 100;
inline constexpr std::uint32_t kLeaseMsMax = 600'000;

struct RecordInfo {
  std::string id;  // At most kNameBytesMax bytes, unique over all tenants.
  std::string tenant;
  std::uint64_t version = 0;        // From 1.
  bool open = false;                // Work is left to do; the client's word.
  std::string owner;                // Who holds the lease; empty = nobody.
  std::uint32_t lease_left_ms = 0;  // 0: over, another may take it.
  std::uint64_t order = 0;          // Of creation, ascending.
  std::uint32_t bytes = 0;          // Of the content, in the reply's payload.
};

// All of the following are client to coordinator, answered by RecordsReply or ErrorReply.

// Makes a record (expected_version 0) or changes its content.
struct RecordPut {
  std::uint64_t request_id = 0;
  std::string id;
  std::string tenant;
  std::uint64_t expected_version = 0;
  bool open = true;
  std::vector<std::byte> payload;  // Frame 1: the content, at most kRecordBytesMax.
};

// One record by its id, or a page of a tenant's, newest first.
struct RecordQuery {
  std::uint64_t request_id = 0;
  std::string tenant;
  bool all_tenants = false;  // Whatever `tenant` says.
  std::string id;            // This one only; kNotFound where there is none.
  std::string prefix;        // Only ids that begin so.
  bool open_only = false;
  std::string after;        // Begins behind this id; empty = with the newest.
  std::uint32_t limit = 0;  // 0 = kRecordsPerReplyMax, which is also the most.
};

// Takes or renews the lease; refused with kConflict and the time left while another holds it.
struct RecordClaim {
  std::uint64_t request_id = 0;
  std::string id;
  std::string owner;
  std::uint32_t lease_ms = 0;  // From now, at most kLeaseMsMax; 0 gives it back.
};

struct RecordDelete {
  std::uint64_t request_id = 0;
  std::string id;
  std::string tenant;
  std::uint64_t expected_version = 0;
};

// coordinator to client: the record as it now is (without content after RecordDelete), or the page.
struct RecordsReply {
  std::uint64_t request_id = 0;
  std::vector<RecordInfo> records;
  bool more = false;               // Others follow behind the last.
  std::vector<std::byte> payload;  // Frame 1: their contents, one behind the other.
};

}  // namespace tessera::protocol
