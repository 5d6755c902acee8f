#include <cstdio>
#include <exception>

#include "clients/cli/command.hpp"
#include "clients/cli/model_commands.hpp"
#include "clients/cli/tokenize_command.hpp"
#include "common/log.hpp"

int main(int argc, char** argv) {
  using namespace tessera;
  CLI::App app{"Tessera: text embeddings from a cluster of GPUs.", "tessera"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("tessera ") + TESSERA_VERSION);
  app.footer(
      std::string("Start here:\n"
                  "  tessera up --model deploy/data/demo-model     a cluster on this machine\n"
                  "  tessera embed \"play music in the terminal\"    one text\n"
                  "  tessera submit texts.jsonl --out vectors      a job\n"
                  "`tessera COMMAND --help` explains each.\n") +
      cli::kExitCodes);
  cli::Selected selected;
  cli::add_up(app, selected);
  cli::add_embed(app, selected);
  cli::add_submit(app, selected);
  cli::add_search(app, selected);
  cli::add_status(app, selected);
  cli::add_cancel(app, selected);
  cli::add_servers(app, selected);
  cli::add_tokenize_command(app);
  cli::add_model_commands(app, selected.run);
  try {
    log::init("tessera", "warn");
    app.parse(argc, argv);
    return selected.run ? selected.run() : cli::kExitOk;
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? cli::kExitOk : cli::kExitUsage;
  } catch (const FatalError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: unexpected: %s\n", error.what());
  }
  return cli::kExitFailed;
}
