import { readFileSync } from "node:fs";

interface Settings {
  readonly rounds: number;
}

class Configuration {
  constructor(private readonly path: string) {}

  load(): Settings {
    const text: string =
      readFileSync(this.path, "utf8");
    return { rounds: text.length };
  }
}

const computeTotal = (settings: Settings): number => {
  let total = 0;
  for (let round = 0; round < settings.rounds; round++) {
    total += Math.sqrt(round) % 7;
  }
  if (process.argv.includes("--stack")) {
    console.log(new Error("here").stack);
  }
  return total;
};

function serveOne(path: string): number {
  const settings = new Configuration(path).load();
  return computeTotal(settings) + computeTotal(settings);
}

serveOne(__filename);
