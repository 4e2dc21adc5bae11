"""Pairs of answers to one question, written by hand: what the thresholds of panels were found with.

`SAME` say the same in other words; everything else does not. `TOLD_APART` differ in a detail that changes what is
claimed, which a model of whole texts hardly sees; `ELSEWHERE` say other things, or do not answer the same question.
`LOOSE` answer the same, each in its own way, as poems and recommendations do: they neither agree nor disagree.
"""

# Letters of other scripts are what some of this is about.
# ruff: noqa: RUF001

from typing import Final, NamedTuple


class Pair(NamedTuple):
    """Two answers, and how they differ."""

    kind: str
    first: str
    second: str


SAME: Final = [
    Pair("wording", "The capital of France is Paris.", "Paris is the capital of France."),
    Pair("wording", "The capital of Australia is Canberra.", "Australia's capital is Canberra."),
    Pair(
        "wording",
        "Water boils at 100 degrees Celsius at sea level.",
        "At sea level, water boils at 100 degrees Celsius.",
    ),
    Pair(
        "wording",
        "The largest planet in the solar system is Jupiter.",
        "Jupiter is the largest planet in our solar system.",
    ),
    Pair(
        "wording",
        "You can reverse a list in Python by calling its reverse method.",
        "In Python, a list can be reversed by calling its reverse method.",
    ),
    Pair(
        "wording",
        "The heart pumps blood through the body.",
        "The heart pumps blood around the body.",
    ),
    Pair(
        "wording",
        "Photosynthesis is the process by which plants turn light into chemical energy.",
        "Photosynthesis is how plants convert light into chemical energy.",
    ),
    Pair(
        "wording",
        "The meeting was moved to Thursday at 15:00 because the room was taken.",
        "Because the room was taken, the meeting was moved to Thursday at 15:00.",
    ),
    Pair(
        "wording",
        "Yes, you can freeze cooked rice for up to 6 months.",
        "Yes. Cooked rice can be frozen for up to 6 months.",
    ),
    Pair(
        "wording",
        "The book was written by George Orwell in 1949.",
        "It was written by George Orwell in 1949.",
    ),
    Pair(
        "wording",
        "A prime number is a whole number greater than 1 whose only divisors are 1 and itself.",
        "A prime number is a natural number greater than 1 that is divisible only by 1 and itself.",
    ),
    Pair(
        "wording",
        "The train leaves at 9:40 from platform 7.",
        "The train departs at 9:40 from platform 7.",
    ),
    Pair(
        "wording",
        "No, spiders are not insects; they are arachnids.",
        "No, spiders are not insects. They belong to the arachnids.",
    ),
    Pair(
        "wording",
        "The function returns an empty list when the file does not exist.",
        "When the file does not exist, the function returns an empty list.",
    ),
    Pair(
        "form",
        "The answer is **42**.",
        "The answer is 42.",
    ),
    Pair(
        "form",
        "You need:\n- flour\n- sugar\n- butter",
        "You need:\n* flour\n* sugar\n* butter",
    ),
    Pair(
        "form",
        "The three states of matter are solid, liquid and gas.",
        "The three states of matter are: solid, liquid, and gas.",
    ),
    Pair("form", "It's in the top-left corner.", "It is in the top left corner."),
    Pair("short", "Paris", "The capital of France is Paris."),
    Pair("short", "Yes.", "Yes, that is correct."),
    Pair("short", "Blue", "The sky looks blue."),
    Pair(
        "length",
        "The sky is blue because air scatters blue light more than red light.",
        "The sky appears blue because molecules in the air scatter short wavelengths of sunlight, such as blue, much "
        "more strongly than long ones, such as red. This is called Rayleigh scattering.",
    ),
    Pair(
        "length",
        "Use a context manager, so that the file is closed even if an error occurs.",
        "The best way is to open the file with a context manager. The with statement makes sure that the file is "
        "closed when the block ends, even if an error occurs inside of it.",
    ),
    Pair(
        "long",
        "Remote work has clear advantages. People save the time they would spend on the way to the office, they can "
        "arrange the day around their families, and companies need less space. It also has costs. Colleagues who "
        "never meet know each other less, new people learn more slowly, and for many the line between work and home "
        "becomes thin. Most teams do best with a mixture: some days together, some days at home, and clear rules on "
        "when people can be reached.",
        "There are clear advantages to remote work. People save the time of the commute, they can arrange their day "
        "around the family, and companies need less office space. But it has costs as well. Colleagues who never "
        "meet do know each other less, new people learn more slowly, and for many people the line between home and "
        "work becomes thin. A mixture is best for most teams: some days at home, some days together, and clear rules "
        "about when people can be reached.",
    ),
    Pair(
        "long",
        "To make a good espresso, start with fresh beans and grind them finely, just before you need them. Fill the "
        "basket evenly, press the coffee down with firm and level pressure, and lock the handle in. The water should "
        "be just below boiling. The shot should run slowly, in a thin stream the colour of honey; when it becomes "
        "pale, stop. If it runs too fast, grind finer; if it hardly runs, grind coarser.",
        "A good espresso starts with fresh beans, ground finely just before you need them. Fill the basket evenly, "
        "press the coffee down with level and firm pressure, then lock the handle in. The water ought to be just "
        "below boiling. The shot should run slowly in a thin stream, honey in colour; stop when it turns pale. If it "
        "runs too fast, grind finer, and if it hardly runs at all, grind coarser.",
    ),
    Pair(
        "long",
        "Vaccines train the immune system without causing the disease. They show it a harmless part of a germ, or a "
        "weakened form of it. The body answers with antibodies and with cells that remember. When the real germ "
        "arrives later, those cells recognise it and the response is quick and strong, so that most people do not "
        "become ill, or only mildly so.",
        "A vaccine trains the immune system without causing the disease. The body is shown a harmless part of a "
        "germ or a weakened form of it, and answers with antibodies and memory cells. If the real germ comes later, "
        "these cells recognise it, and the response is strong and quick, so that most people do not become ill or "
        "have only a mild illness.",
    ),
    Pair(
        "long",
        "A hash table stores pairs of keys and values in an array. A function turns the key into a number, and the "
        "number says in which slot the pair belongs. When two keys fall into the same slot, the table keeps a short "
        "list there, or looks for the next free slot. As long as the table is not too full, looking something up "
        "takes the same time however many pairs there are.",
        "Hash tables keep pairs of keys and values in an array. A hash function turns a key into a number that says "
        "which slot the pair belongs in. If two keys fall into the same slot, a short list is kept there, or the next "
        "free slot is used. While the table is not too full, a lookup takes the same time no matter how many pairs "
        "it holds.",
    ),
    Pair(
        "second round",
        "You can store cooked pasta in the fridge for 3 to 5 days.",
        "Cooked pasta keeps in the fridge for 3 to 5 days.",
    ),
    Pair(
        "second round",
        "Mount Everest is the highest mountain on Earth, at 8,849 m.",
        "At 8849 m, Mount Everest is Earth's highest mountain.",
    ),
    Pair(
        "second round",
        "Restart the router, then wait two minutes before you connect again.",
        "First restart the router. Then wait 2 minutes before connecting again.",
    ),
    Pair(
        "second round",
        "The Great Wall is not visible from the Moon with the naked eye.",
        "No, the Great Wall can't be seen from the Moon with the naked eye.",
    ),
    Pair(
        "second round",
        "Bananas are rich in potassium and easy to digest.",
        "Bananas are easy to digest and rich in potassium.",
    ),
    Pair(
        "second round",
        "Use the `strip` method to remove spaces from both ends of a string.",
        "To remove spaces from both ends of a string, use the `strip` method.",
    ),
    Pair(
        "second round",
        "The deadline for the report is Friday at noon.",
        "The report is due on Friday at noon.",
    ),
    Pair(
        "second round",
        "The Nile flows north into the Mediterranean Sea.",
        "The Nile runs north and empties into the Mediterranean Sea.",
    ),
]

TOLD_APART: Final = [
    Pair("number", "The bridge was opened in 1937.", "The bridge was opened in 1933."),
    Pair(
        "number",
        "The train leaves at 9:40 from platform 7.",
        "The train leaves at 9:40 from platform 1.",
    ),
    Pair(
        "number",
        "Take 2 tablets every 8 hours with a glass of water.",
        "Take 8 tablets every 2 hours with a glass of water.",
    ),
    Pair("number", "The total comes to $1,250.00.", "The total comes to $1,250,000."),
    Pair(
        "number",
        "The temperature will fall to -5 degrees.",
        "The temperature will fall to 5 degrees.",
    ),
    Pair(
        "number",
        "The patient should rest for two weeks.",
        "The patient should rest for three weeks.",
    ),
    Pair("number", "She finished in first place.", "She finished in second place."),
    Pair("number", "The box weighs 3.5 kg.", "The box weighs 35 kg."),
    Pair("number", "Prices rose by half last year.", "Prices rose by a quarter last year."),
    Pair("number", "The area is 20 m².", "The area is 20 m³."),
    Pair("unit", "The fence is 12 meters long.", "The fence is 12 feet long."),
    Pair("unit", "The ticket costs $20.", "The ticket costs €20."),
    Pair(
        "name", "The novel was written by George Orwell.", "The novel was written by Aldous Huxley."
    ),
    Pair(
        "name",
        "Paris is the largest city in the country.",
        "Lyon is the largest city in the country.",
    ),
    Pair("name", "The capital of Australia is Canberra.", "The capital of Australia is Sydney."),
    Pair(
        "name",
        "The meeting was moved to Thursday because the room was taken.",
        "The meeting was moved to Tuesday because the room was taken.",
    ),
    Pair(
        "name",
        "The phone runs Android and has a large battery.",
        "The phone runs iOS and has a large battery.",
    ),
    Pair("name", "The data is sent to the USA.", "The data is sent to the UK."),
    Pair("name", "Call Maria if the door does not open.", "Call Marta if the door does not open."),
    Pair(
        "roles", "Germany beat Brazil in the semi-final.", "Brazil beat Germany in the semi-final."
    ),
    Pair("roles", "Anna lent Ben the money for the car.", "Ben lent Anna the money for the car."),
    Pair("negation", "The mushroom is safe to eat.", "The mushroom is not safe to eat."),
    Pair(
        "negation",
        "You should restart the server after the update.",
        "You shouldn't restart the server after the update.",
    ),
    Pair(
        "negation",
        "The contract can be ended without notice.",
        "The contract can be ended with notice.",
    ),
    Pair(
        "negation", "The whale is not a fish but a mammal.", "The whale is not a mammal but a fish."
    ),
    Pair(
        "negation",
        "This medicine has known side effects.",
        "This medicine has no known side effects.",
    ),
    Pair(
        "negation",
        "The function is thread-safe and reentrant.",
        "The function is neither thread-safe nor reentrant.",
    ),
    Pair("negation", "He always answers his mail.", "He never answers his mail."),
    Pair(
        "negation",
        "The two results are consistent with each other.",
        "The two results are inconsistent with each other.",
    ),
    Pair(
        "negation",
        "Yes, you can take both at the same time.",
        "No, you can take both at the same time.",
    ),
    Pair(
        "opposite",
        "Interest rates will increase next year.",
        "Interest rates will decrease next year.",
    ),
    Pair(
        "opposite",
        "Turn the valve to the left to open it.",
        "Turn the valve to the right to open it.",
    ),
    Pair("opposite", "Eat before you take the tablet.", "Eat after you take the tablet."),
    Pair("opposite", "The statement is true.", "The statement is false."),
    Pair("opposite", "It is legal to park here at night.", "It is illegal to park here at night."),
    Pair(
        "opposite", "Use at least one sensor in each room.", "Use at most one sensor in each room."
    ),
    Pair(
        "opposite",
        "The value must be x > 10 for this to hold.",
        "The value must be x < 10 for this to hold.",
    ),
    Pair(
        "opposite",
        "All of the tests passed on the first try.",
        "Some of the tests passed on the first try.",
    ),
    Pair(
        "long, a number",
        "To make a good espresso, start with fresh beans and grind them finely, just before you need them. Fill the "
        "basket evenly, press the coffee down with firm and level pressure, and lock the handle in. The water should "
        "have 93 degrees. The shot should run slowly, in a thin stream the colour of honey; when it is pale, stop.",
        "To make a good espresso, start with fresh beans and grind them finely, just before you need them. Fill the "
        "basket evenly, press the coffee down with firm and level pressure, and lock the handle in. The water should "
        "have 63 degrees. The shot should run slowly, in a thin stream the colour of honey; when it is pale, stop.",
    ),
    Pair(
        "long, a name",
        "The treaty ended a war that had lasted for a generation. It was negotiated over several years in two cities, "
        "and it changed how states dealt with each other. The delegation of Sweden was the most powerful at it, "
        "and it gained land on the coast. The emperor lost much of his influence over the princes, who could now make "
        "alliances of their own.",
        "The treaty ended a war that had lasted for a generation. It was negotiated over several years in two cities, "
        "and it changed how states dealt with each other. The delegation of Denmark was the most powerful at it, "
        "and it gained land on the coast. The emperor lost much of his influence over the princes, who could now make "
        "alliances of their own.",
    ),
    Pair(
        "long, a negation",
        "Vaccines train the immune system without causing the disease. They show it a harmless part of a germ, or a "
        "weakened form of it. The body answers with antibodies and with cells that remember. Booster doses are needed "
        "by most people. When the real germ arrives later, those cells recognise it and the response is quick.",
        "Vaccines train the immune system without causing the disease. They show it a harmless part of a germ, or a "
        "weakened form of it. The body answers with antibodies and with cells that remember. Booster doses are not "
        "needed by most people. When the real germ arrives later, those cells recognise it and the response is quick.",
    ),
    Pair("code", "Use `a == b` to compare them.", "Use `a != b` to compare them."),
    Pair(
        "code",
        "Try this:\n```python\ndef top(items):\n    return max(items)\n```",
        "Try this:\n```python\ndef top(items):\n    return min(items)\n```",
    ),
    Pair(
        "code",
        "The file is in /etc/ssl/certs on the server.",
        "The file is in /etc/ssl/private on the server.",
    ),
    Pair("letter", "The answer is (B).", "The answer is (C)."),
    Pair("language", "Die Brücke wurde nicht gesperrt.", "Die Brücke wurde gesperrt."),
    Pair(
        "language",
        "Le médicament est sans danger pour les enfants.",
        "Le médicament est un danger pour les enfants.",
    ),
    Pair("language", "El tren sale a las dos de la tarde.", "El tren sale a las tres de la tarde."),
    Pair("language", "这种蘑菇可以吃。", "这种蘑菇不可以吃。"),
    Pair("language", "Поезд уходит утром с первого пути.", "Поезд уходит вечером со второго пути."),
    Pair("language", "この薬は食前に飲んでください。", "この薬は食後に飲んでください。"),
    Pair(
        "second round",
        "The drug interacts with grapefruit juice.",
        "The drug does not interact with grapefruit juice.",
    ),
    Pair(
        "second round",
        "Sodium is added to the mixture in small portions while it is stirred.",
        "Potassium is added to the mixture in small portions while it is stirred.",
    ),
    Pair(
        "second round",
        "The mixture is heated slowly while sodium is added in small portions.",
        "The mixture is heated slowly while potassium is added in small portions.",
    ),
    Pair("second round", "Pay the invoice within 30 days.", "Pay the invoice within 60 days."),
    Pair(
        "second round", "Pay the invoice within thirty days.", "Pay the invoice within sixty days."
    ),
    Pair(
        "second round",
        "The Treaty of Rome created the community.",
        "The Treaty of Paris created the community.",
    ),
    Pair("second round", "The war started because of trade.", "The war started in spite of trade."),
    Pair(
        "second round",
        "The king was the father of the duke.",
        "The duke was the father of the king.",
    ),
    Pair(
        "second round",
        "Dr. Smith recommends the vaccine for children.",
        "Dr. Smyth recommends the vaccine for children.",
    ),
    Pair(
        "second round",
        "It's unlikely that the bill passes this year.",
        "It's likely that the bill passes this year.",
    ),
    Pair(
        "second round",
        "The cell membrane lets water in and keeps salt out.",
        "The cell membrane lets salt in and keeps water out.",
    ),
    Pair(
        "second round",
        "The company made a profit of 5 million.",
        "The company made a loss of 5 million.",
    ),
    Pair(
        "second round",
        "You can deduct the cost of travel from your income.",
        "You can't deduct the cost of travel from your income.",
    ),
    Pair(
        "second round",
        "Set the flag to true in the config.",
        "Set the flag to false in the config.",
    ),
    Pair(
        "second round",
        "The court ruled for the plaintiff on both counts.",
        "The court ruled for the defendant on both counts.",
    ),
    Pair(
        "second round",
        "The court ruled in favour of the tenant, and the landlord has to pay the costs.",
        "The court ruled in favour of the landlord, and the tenant has to pay the costs.",
    ),
    Pair(
        "second round",
        "Mix the red paint with the yellow one.",
        "Mix the blue paint with the yellow one.",
    ),
    Pair(
        "second round",
        "The patient is allergic to nuts and may eat eggs.",
        "The patient is allergic to eggs and may eat nuts.",
    ),
    Pair(
        "second round",
        "The old version is faster than the new one.",
        "The new version is faster than the old one.",
    ),
    Pair(
        "second round",
        "The suspect denied that he was there.",
        "The suspect admitted that he was there.",
    ),
    Pair(
        "second round",
        "Add the milk first and the eggs afterwards.",
        "Add the eggs first and the milk afterwards.",
    ),
    Pair(
        "second round",
        "The package is called requests on PyPI.",
        "The package is called httpx on PyPI.",
    ),
    Pair("second round", "The plane lands at 7 am in Rome.", "The plane lands at 7 pm in Rome."),
    Pair("second round", "He was born on 3 May in Vienna.", "He was born on 3 June in Vienna."),
    Pair(
        "second round",
        "Only members can vote in the meeting.",
        "Members can vote only in the meeting.",
    ),
]

ELSEWHERE: Final = [
    Pair(
        "fact",
        "Whales breathe air through a hole on top of the head.",
        "Whales sing to each other over long distances.",
    ),
    Pair(
        "fact",
        "Use a hammer and a nail to hang the picture.",
        "Use an adhesive strip to hang the picture.",
    ),
    Pair(
        "fact",
        "The engine fails because the fuel filter is clogged.",
        "The engine fails because a spark plug is worn out.",
    ),
    Pair("fact", "Add a pinch of salt to the dough.", "Add a spoonful of sugar to the dough."),
    Pair(
        "fact",
        "The bug is caused by a race between two threads.",
        "The bug is caused by a buffer that is too small.",
    ),
    Pair("fact", "The best time to visit is spring.", "The best time to visit is autumn."),
    Pair(
        "fact", "Cats are kept by more people than dogs.", "Dogs are kept by more people than cats."
    ),
    Pair(
        "opinion",
        "You should rent, because it leaves you free to move.",
        "You should buy, because rent is money lost.",
    ),
    Pair("unrelated", "The capital of France is Paris.", "Knead the dough for ten minutes."),
    Pair("unrelated", "Sort the list first, then search in it.", "The violin has four strings."),
    Pair("unrelated", "Your parcel arrives tomorrow.", "Chlorophyll makes leaves green."),
    Pair("unrelated", "It depends on the weather.", "A sonnet has fourteen lines."),
    Pair(
        "asks back",
        "The capital of Georgia is Tbilisi.",
        "Do you mean the country or the state of Georgia?",
    ),
    Pair("language", "The capital of France is Paris.", "La capitale de la France est Paris."),
    Pair("language", "The water is too hot to drink.", "Das Wasser ist zu heiß zum Trinken."),
    Pair("language", "Le train part à neuf heures.", "Les feuilles sont vertes au printemps."),
    Pair("language", "今天天气很好。", "请把文件保存在桌面上。"),
    Pair("language", "Сегодня хорошая погода.", "Сохраните файл на рабочем столе."),
    Pair(
        "unrelated",
        "The quarterly report shows that revenue grew while costs stayed flat.",
        "To tie a bowline, make a loop, pass the end up through it, around the rope and back down.",
    ),
    Pair(
        "unrelated",
        "Mitochondria produce most of the energy of a cell in the form of ATP.",
        "Our return policy allows you to send items back within a month of purchase.",
    ),
    Pair(
        "unrelated",
        "The Battle of Hastings took place in England, where William defeated Harold.",
        "Preheat the oven, grease the tin, and fold the egg whites in carefully.",
    ),
    Pair(
        "unrelated",
        "SELECT name FROM users WHERE active = 1 ORDER BY name;",
        "You should consult a lawyer before you sign a contract like that one.",
    ),
    Pair(
        "language",
        "The water is too hot to drink, so let it cool for a while.",
        "Das Wasser ist zu heiß zum Trinken, lass es eine Weile abkühlen.",
    ),
    Pair(
        "language",
        "Jupiter is the largest planet in our solar system.",
        "木星是太阳系中最大的行星。",
    ),
]

LOOSE: Final = [
    Pair(
        "own way",
        "Soft drops on the roof\nthe garden drinks in silence\nmorning smells of earth",
        "Grey clouds gather low\nsilver threads stitch sky to ground\npuddles hold the light",
    ),
    Pair(
        "own way",
        "How about Biscuit, Olive, Pixel or Captain?",
        "Some ideas: Luna, Miso, Shadow and Pepper.",
    ),
    Pair(
        "own way",
        "Brew bold. Live slow.",
        "Your morning deserves better beans.",
    ),
    Pair(
        "own way",
        "Once upon a time, a lighthouse keeper found a letter in a bottle. It was addressed to him, in his own "
        "handwriting.",
        "Mara had never believed in dragons, until one landed on her balcony and asked politely for a cup of tea.",
    ),
    Pair(
        "own way",
        "You could visit the museum, take a boat trip, or walk along the old city wall.",
        "Try the market in the morning, then rent bikes and go to the beach; in the evening there is live music "
        "downtown.",
    ),
    Pair(
        "own way",
        "I would start with learning Python, because it's easy to read and widely used.",
        "JavaScript is a great first choice: it runs in every browser and you see results at once.",
    ),
    Pair(
        "own way",
        "I can't be sure without more details. Could you tell me which version you use?",
        "Open the settings, choose Network, and switch the proxy off. Then restart the program.",
    ),
    Pair(
        "own way",
        "Sleep matters because the brain sorts what it learned, the body repairs itself, and hormones get back "
        "into balance. Without enough of it, people are slower, more irritable and more often ill.",
        "There are many reasons why sleep is important:\n\n1. **Memory**: during the night the brain strengthens "
        "what was learned during the day.\n2. **Health**: tissue is repaired, and the immune system gets "
        "stronger.\n3. **Mood**: those who sleep too little are more irritable.\n\nAim for seven to nine hours a "
        "night.",
    ),
    Pair(
        "own way",
        "I'd go with PostgreSQL. It is reliable, has good support for JSON, and every cloud offers it.",
        "For most web applications, PostgreSQL is the safest choice. It's mature, handles relational data and JSON "
        "documents well, and is available as a managed service everywhere. If you need only a cache, use Redis "
        "instead.",
    ),
    Pair(
        "own way",
        "Inflation means that money buys less over time. It happens when demand grows faster than supply, when "
        "costs rise, or when a lot of money is printed.",
        "Inflation is the rate at which prices of goods and services rise. Its causes include demand that exceeds "
        "supply (demand-pull), higher production costs such as energy (cost-push), and growth in the money supply. "
        "Central banks fight it with interest rates.",
    ),
    Pair(
        "own way",
        "Dear Ms Lee,\n\nthank you for the interview yesterday. I enjoyed learning about the team, and I would be "
        "glad to join.\n\nBest regards,\nTom",
        "Subject: Thank you\n\nHi Ms. Lee,\n\nI wanted to thank you for taking the time to meet with me. Our "
        "conversation made me even more excited about the role. Please let me know if you need anything else.\n\n"
        "Kind regards\nTom",
    ),
    Pair(
        "own way",
        "A haiku about rain:\n\nSoft drops on the roof\nthe garden drinks in silence\nmorning smells of earth",
        "Grey clouds gather low\nsilver threads stitch sky to ground\npuddles hold the light",
    ),
    Pair(
        "own way",
        "```python\ndef is_even(n):\n    return n % 2 == 0\n```",
        "You can check it with the modulo operator:\n\n```python\nis_even = lambda n: not n % 2\n```\nA number is "
        "even if it leaves no remainder when divided by two.",
    ),
    Pair(
        "own way",
        "The Roman Empire fell for several reasons: economic trouble, overexpansion, political instability and "
        "invasions by Germanic tribes.",
        "Historians name many causes for the fall of Rome. Corruption and short-lived emperors weakened the state, "
        "the army relied on mercenaries, taxes crushed trade, and Goths and Vandals broke through the borders. In "
        "476 Odoacer deposed the last emperor.",
    ),
    Pair(
        "own way",
        "Die Hauptstadt von Australien ist Canberra, nicht Sydney.",
        "Australiens Hauptstadt heißt Canberra.",
    ),
    Pair(
        "own way",
        "Pour faire une omelette, battez les œufs, salez, et versez dans une poêle chaude avec du beurre.",
        "Battez trois œufs avec du sel, puis faites-les cuire dans une poêle beurrée bien chaude.",
    ),
]
