#include <map>
#include <memory>

#include "clients/cli/command.hpp"
#include "clients/cli/submit/submit_run.hpp"
#include "common/stop_signal.hpp"

namespace tessera::cli {
namespace {

void add_input_options(CLI::App& command, SubmitOptions& options) {
  command
      .add_option(
          "INPUT", options.inputs,
          "Files: .txt (a line a text), .jsonl ({\"text\": ...} or {\"ids\": [...]} a line), "
          ".csv, .tsv (with a header row); - is stdin")
      ->required();
  command
      .add_option("--input-format", options.read.format,
                  "txt, jsonl, csv or tsv, whatever the name; stdin is txt by itself")
      ->check(CLI::IsMember({"txt", "jsonl", "csv", "tsv"}));
  command.add_option("--field", options.read.field, "Field or column of the text")
      ->capture_default_str();
  command.add_option("--id-field", options.read.id_field,
                     "Field or column of the id; default: id or _id where there is one, else the "
                     "item's number");
}

void add_output_options(CLI::App& command, SubmitOptions& options) {
  command.add_option("--out", options.output.folder, "Folder of the vectors; made when missing")
      ->required();
  command
      .add_option_function<std::string>(
          "--format",
          [&options](const std::string& format) {
            options.output.format = format == "jsonl"   ? OutputFormat::kJsonLines
                                    : format == "fvecs" ? OutputFormat::kFvecs
                                                        : OutputFormat::kNpy;
          },
          "npy (shards vectors-00000.npy and ids.txt), jsonl, or fvecs (with ids.txt)")
      ->check(CLI::IsMember({"npy", "jsonl", "fvecs"}))
      ->default_str("npy");
  command.add_flag_callback(
      "--float16", [&options] { options.spec.vector_type = protocol::VectorType::kFloat16; },
      "Vectors of two bytes a value instead of four (npy)");
  command.add_option("--shard-rows", options.output.shard_rows, "Vectors of one .npy file")
      ->check(CLI::Range(1U, 1U << 30))
      ->capture_default_str();
  command
      .add_option("--chunk-items", options.chunk_items,
                  "Items that travel together; what a crash makes the next run do again")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option("--priority", options.priority, "Weight of this job's share, 1 to 100")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command.add_flag("--json", options.json, "The summary as JSON");
  command.add_flag("--quiet", options.quiet, "No progress on stderr");
}

}  // namespace

void add_submit(CLI::App& app, Selected& selected) {
  CLI::App* command = app.add_subcommand("submit", "Embed whole files as a job");
  auto options = std::make_shared<SubmitOptions>();
  add_input_options(*command, *options);
  add_output_options(*command, *options);
  add_spec_options(*command, options->spec);
  add_connect_options(*command, options->connect);
  command->footer(
      std::string(
          "Rows are in the order of the input; ids.txt has the id of each row. Items without a\n"
          "vector are in errors.jsonl, shortened ones in truncated.jsonl. The same command again\n"
          "goes on where the last run ended, after Ctrl-C or a crash too, and embeds nothing "
          "twice.\n\nExamples:\n"
          "  tessera submit packages.jsonl --out vectors\n"
          "  tessera submit a.csv b.csv --field body --id-field key --out vectors --dimensions "
          "256\n"
          "  zcat texts.gz | tessera submit - --out vectors --truncate right --format fvecs\n") +
      kExitCodes);
  command->callback([options, &selected] {
    selected.run = [options] {
      options->output.type = options->spec.vector_type;
      const StopSignal stop;
      return SubmitRun(*options, stop).run();
    };
  });
}

}  // namespace tessera::cli
