#pragma once

#include <string>

#include "clients/cli/io/csv_header.hpp"
#include "clients/cli/io/csv_rows.hpp"
#include "clients/cli/io/readers.hpp"

namespace tessera::cli {

// The records of a .csv or .tsv file. A row of another width than the first, one in which something
// follows a closing quote, or a quote that never closes, is an error of its record.
class CsvReader : public RecordReader {
 public:
  // Throws FatalError when the shape of the file is not the one that the options and its header
  // say.
  CsvReader(const std::string& path, const ReadOptions& options, CsvDialect dialect,
            const std::atomic<bool>& stop);

  bool next(Record& record) override;
  std::uint64_t bytes_read() const override { return source_.bytes_read(); }
  std::string description() const override;
  bool has_ids() const override { return columns_.id.has_value(); }

 private:
  ByteSource source_;
  CsvDialect dialect_;
  ReadOptions options_;
  CsvRows rows_;
  CsvColumns columns_;
  bool quotes_seen_ = false;  // Although they stand for themselves.
};

}  // namespace tessera::cli
