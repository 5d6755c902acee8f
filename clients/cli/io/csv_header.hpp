#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clients/cli/io/csv_rows.hpp"
#include "clients/cli/io/readers.hpp"

namespace tessera::cli {

// Which columns of a table are used.
struct CsvColumns {
  std::vector<std::string> names;  // Numbers from 1 where the table has no header.
  std::size_t text = 0;
  std::optional<std::size_t> id;
};

// Chooses by the names alone; pure. Throws FatalError where they do not say it, with the columns
// found and the option that helps. `header`: the first row, be it a header or not.
CsvColumns choose_columns(const std::string& path, const std::vector<std::string>& header,
                          const CsvDialect& dialect, const ReadOptions& options);

// Throws FatalError when the first rows show that the dialect is another one: none of them fits to
// the header, or a quote is left open. `sample`: the start of the text, all of it when `whole`.
void judge_rows(const std::string& path, std::string_view sample, bool whole,
                const CsvDialect& dialect, const ReadOptions& options);

// A name that differs from `wanted` in case and spaces only, among `names`; "" when there is none.
std::string similar_name(const std::vector<std::string>& names, std::string_view wanted);

// A name that may be meant as the id although it is not spelt "id" or "_id"; "" when there is none,
// or one is.
std::string similar_id(const std::vector<std::string>& names, const ReadOptions& options);

// "id", "title", "body" and how many more.
std::string list_names(const std::vector<std::string>& names);

}  // namespace tessera::cli
